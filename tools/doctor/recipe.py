"""The recipe that is asked about: what `make repro` would run now, or what `dvc exp run` would with some overrides."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from hydra_plugins.tunepress import Tunepress
from stages.lib.edge.configuration import CONF, PARAMS, compose_conf, typed
from stages.lib.edge.paths import BASE

LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Recipe:
    """A recipe, and what there already is of it.

    Attributes:
        params: all sections of params.yaml.
        base_at_hand: whether models/base was fetched for it, so that nothing is downloaded.
    """

    params: Tunepress
    base_at_hand: bool

    @classmethod
    def read(cls, overrides: list[str]) -> "Recipe":
        """params.yaml, or what conf/ gives with overrides.

        Raises:
            InputError: it does not compose, or the schema refuses it.
        """
        chosen = PARAMS.exists() and not overrides
        text = PARAMS.read_text(encoding="utf-8") if chosen else compose_conf(overrides)
        config = cast(DictConfig, OmegaConf.create(text))
        params = typed(Tunepress, config, str(PARAMS) if chosen else f"{CONF}/")
        return cls(params, fetched() == OmegaConf.to_container(config.base_model))


def fetched() -> object:
    """The base model that models/base was made of, as dvc.lock has it; None where there is none."""
    if not (BASE / "config.json").exists() or not LOCK.exists():
        return None
    lock = OmegaConf.to_container(OmegaConf.load(LOCK))
    assert isinstance(lock, dict)
    recorded = lock["stages"].get("fetch", {}).get("params", {}).get(str(PARAMS), {})
    return recorded.get("base_model")
