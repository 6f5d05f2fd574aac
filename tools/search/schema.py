"""`conf/search/<name>.yaml`: the space, the goal, the constraints and the number of trials."""

from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from tools.search.space import Space, parse
from tunepress.core.errors import InputError, one_line
from tunepress.core.keys import unknown_key
from tunepress.core.params import CONF, read_yaml

SEARCHES = CONF / "search"
SPLIT = "evaluate.split"


class Sampler(Enum):
    """How Optuna chooses: all combinations, at random, or based on earlier trials (TPE)."""

    grid = "grid"
    random = "random"
    tpe = "tpe"


@dataclass
class Bound:
    """Limits of a metric, absolute or as a share of the default recipe's metric."""

    max: float | None = None
    min: float | None = None
    max_share_of_default: float | None = None
    min_share_of_default: float | None = None


@dataclass
class Search:
    """The keys of the file. Metrics are named as in `dvc exp show`."""

    space: dict[str, Any]
    minimize: str | None = None
    maximize: str | None = None
    constraints: dict[str, Bound] = field(default_factory=dict)
    sampler: Sampler = Sampler.grid
    n_trials: int | None = None  # besides the default recipe; null: the whole grid
    against: str | None = None  # a metric; the plot shows the goal against it, with intervals
    seed: int = 0
    overrides: list[str] = field(default_factory=list)  # of every trial, as in `dvc exp run -S`
    measured_here: list[str] = field(default_factory=list)  # metrics that depend on the machine; the committed ones are not used

    @property
    def goal(self) -> str:
        """The metric that decides between the recipes that meet the constraints."""
        return cast(str, self.minimize or self.maximize)

    @property
    def sign(self) -> int:
        """1 to minimize the goal, -1 to maximize it."""
        return 1 if self.minimize else -1

    def dimensions(self) -> Space:
        return {key: parse(key, values) for key, values in self.space.items()}


def load(name: str) -> Search:
    """Reads and checks a search.

    Raises:
        InputError: no such file, an unknown key, a wrong type, or contradictory settings.
    """
    path = SEARCHES / f"{name}.yaml"
    searches = sorted(file.stem for file in SEARCHES.glob("*.yaml"))
    if name not in searches:
        raise InputError(f"{path}: not found; SEARCH= must be one of {', '.join(searches) or '(none yet)'}")
    search = read(path)
    try:
        message = problem(search)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if message:
        raise InputError(f"{path}: {message}")
    return search


def read(path: Path) -> Search:
    """Reads a file, with its keys and types checked."""
    try:
        checked = OmegaConf.merge(OmegaConf.structured(Search), read_yaml(path))
        OmegaConf.resolve(checked)
        if missing := sorted(OmegaConf.missing_keys(checked)):
            raise InputError(f"{path}: {missing[0]} has no value")
        return cast(Search, OmegaConf.to_object(checked))
    except ConfigKeyError as error:
        known = [item.name for item in fields(error.object_type or Search)]
        raise InputError(f"{path}: {unknown_key(str(error.full_key), known)}") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {error.full_key}: {one_line(error)}") from error


def problem(search: Search) -> str | None:
    """The first problem of a search besides its types, or None."""
    if not search.space:
        return "space is empty; add a key of params.yaml and its values, such as build.block_size: [32, 64]"
    if bool(search.minimize) == bool(search.maximize):
        return "set either minimize or maximize"
    for metric, bound in search.constraints.items():
        if all(limit is None for limit in vars(bound).values()):
            return f"constraints.{metric}: no limit; set one of {', '.join(vars(bound))}"
    if any(key.lstrip("+").startswith(SPLIT) for key in (*search.space, *search.overrides)):
        return f"{SPLIT} must not be set: a search scores trials on validation rows, and the winner on test rows"
    dimensions = search.dimensions()
    unlisted = [key for key, dimension in dimensions.items() if not dimension.texts()]
    if search.sampler is Sampler.grid and unlisted:
        return (
            f"space.{unlisted[0]}: a grid needs a list of values, or low, high and step; otherwise set sampler to random or tpe"
        )
    if search.sampler is not Sampler.grid and search.n_trials is None:
        return f"n_trials has no value, and sampler {search.sampler.value} needs one"
    return "n_trials must be at least 1" if search.n_trials is not None and search.n_trials < 1 else None
