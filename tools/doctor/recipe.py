"""The recipe that is asked about: what `make repro` would run now, or what `dvc exp run` would with some overrides."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from tunepress.config.adapter import Method
from tunepress.config.params import Params
from tunepress.core.params import PARAMS, compose_typed, load, read_yaml
from tunepress.core.paths import BASE

LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Recipe:
    """A recipe, and what there already is of it.

    Attributes:
        params: all sections of params.yaml.
        base_at_hand: whether models/base was fetched for it, so that nothing is downloaded.
    """

    params: Params
    base_at_hand: bool

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return self.params.adapter.method is not Method.none

    @classmethod
    def read(cls, overrides: list[str]) -> "Recipe":
        """params.yaml, or what conf/ gives with overrides.

        Raises:
            InputError: it does not compose, or the schema refuses it.
        """
        params = load(Params, []) if PARAMS.exists() and not overrides else compose_typed(Params, overrides)
        wanted: Any = OmegaConf.to_container(OmegaConf.structured(params.base_model), enum_to_str=True)
        return cls(params, fetched() == given(wanted))


def fetched() -> Any:
    """The base model that models/base was made of, as dvc.lock has it; None where there is none.

    Raises:
        InputError: dvc.lock is not YAML, as after a merge with conflicts.
    """
    if not (BASE / "config.json").exists() or not LOCK.exists():
        return None
    lock: Any = read_yaml(LOCK)
    for level in ("stages", "fetch", "params", str(PARAMS), "base_model"):
        lock = lock.get(level) if isinstance(lock, dict) else None
    return given(lock) if isinstance(lock, dict) else None


def given(base_model: dict[str, Any]) -> dict[str, Any]:
    """The fields that have a value: one that is new in the schema is not in an older lock."""
    return {name: value for name, value in base_model.items() if value is not None}
