"""`conf/search/<name>.yaml`: what to vary, what is wanted, what must hold, and how many trials it may take."""

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
    """How Optuna chooses: all combinations, some at random, or by what the earlier trials gave (TPE)."""

    grid = "grid"
    random = "random"
    tpe = "tpe"


@dataclass
class Bound:
    """What a figure may be at most or at least, as it is or as a share of the default recipe's figure."""

    max: float | None = None
    min: float | None = None
    max_share_of_default: float | None = None
    min_share_of_default: float | None = None


@dataclass
class Search:
    """The keys of the file. The figures are those of `dvc exp show`, by the names that it gives them."""

    space: dict[str, Any]
    minimize: str | None = None
    maximize: str | None = None
    constraints: dict[str, Bound] = field(default_factory=dict)
    sampler: Sampler = Sampler.grid
    n_trials: int | None = None  # beside the default recipe; null: the whole grid
    seed: int = 0
    overrides: list[str] = field(default_factory=list)  # of every trial, as `dvc exp run -S` takes them
    measured_here: list[str] = field(default_factory=list)  # metrics of this machine; the committed ones do not count

    @property
    def goal(self) -> str:
        """The figure that decides between the recipes that meet the constraints."""
        return cast(str, self.minimize or self.maximize)

    @property
    def sign(self) -> int:
        """1 where less of the goal is better, -1 where more is."""
        return 1 if self.minimize else -1

    def dimensions(self) -> Space:
        """The space, each key with what it may be."""
        return {key: parse(key, values) for key, values in self.space.items()}


def load(name: str) -> Search:
    """Reads and checks a search.

    Raises:
        InputError: no such file, an unknown key, a wrong type, or parts that cannot go together.
    """
    path = SEARCHES / f"{name}.yaml"
    there = sorted(file.stem for file in SEARCHES.glob("*.yaml"))
    if name not in there:
        raise InputError(f"{path}: not found; make search SEARCH=... takes one of {', '.join(there) or '(none yet)'}")
    search = typed(path)
    try:
        wrong = refusal(search)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if wrong:
        raise InputError(f"{path}: {wrong}")
    return search


def typed(path: Path) -> Search:
    """The file as a Search, its keys and types checked."""
    try:
        checked = OmegaConf.merge(OmegaConf.structured(Search), read_yaml(path))
        OmegaConf.resolve(checked)
        if missing := sorted(OmegaConf.missing_keys(checked)):
            raise InputError(f"{path}: {missing[0]} has no value")
        return cast(Search, OmegaConf.to_object(checked))
    except ConfigKeyError as error:
        known = [known.name for known in fields(error.object_type or Search)]
        raise InputError(f"{path}: {unknown_key(str(error.full_key), known)}") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {error.full_key}: {one_line(error)}") from error


def refusal(search: Search) -> str | None:
    """What is wrong with a search beyond its types, or None."""
    if not search.space:
        return "space is empty; give a key of params.yaml and its values, as build.block_size: [32, 64]"
    if bool(search.minimize) == bool(search.maximize):
        return "one goal is wanted, minimize or maximize"
    for metric, bound in search.constraints.items():
        if all(limit is None for limit in vars(bound).values()):
            return f"constraints.{metric}: no limit; give one of {', '.join(vars(bound))}"
    if any(key.lstrip("+").startswith(SPLIT) for key in (*search.space, *search.overrides)):
        return f"{SPLIT} is not for a search to choose: it scores trials on validation rows, and the winner on test rows"
    dimensions = search.dimensions()
    endless = [key for key, dimension in dimensions.items() if not dimension.texts()]
    if search.sampler is Sampler.grid and endless:
        return f"space.{endless[0]}: a grid wants a list of values, or low, high and step; or set sampler to random or tpe"
    if search.sampler is not Sampler.grid and search.n_trials is None:
        return f"n_trials has no value; {search.sampler.value} ends by it alone"
    return "n_trials must be 1 or more" if search.n_trials is not None and search.n_trials < 1 else None
