"""The recipe to check: that of `make repro`, or of `dvc exp run` with overrides, and the shape of its base model."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from tools.doctor.known_models import KNOWN
from tunepress.config.adapter import Method
from tunepress.config.base_model import BaseModel, Source
from tunepress.config.params import Params
from tunepress.core.params import PARAMS, compose_typed, load, read_yaml
from tunepress.core.paths import BASE

if TYPE_CHECKING:
    from peft import PeftModel

LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Recipe:
    """A recipe, and whether its base model has been fetched.

    Attributes:
        params: all groups of params.yaml.
        base_fetched: whether models/base was fetched for it.
    """

    params: Params
    base_fetched: bool

    @property
    def trains(self) -> bool:
        method = self.params.adapter.method
        return method is not Method.none and not method.brought

    @classmethod
    def read(cls, overrides: list[str]) -> "Recipe":
        """Reads params.yaml, or composes conf/ if there are overrides.

        Raises:
            InputError: conf/ does not compose, or does not match the schema.
        """
        params = load(Params, []) if PARAMS.exists() and not overrides else compose_typed(Params, overrides)
        base_model: Any = OmegaConf.to_container(OmegaConf.structured(params.base_model), enum_to_str=True)
        return cls(params, fetched_base_model() == without_nulls(base_model))


def fetched_base_model() -> Any:
    """The group base_model for which models/base was made, from dvc.lock; None without one.

    Raises:
        InputError: dvc.lock is not YAML, as after a merge with conflicts.
    """
    if not (BASE / "config.json").exists() or not LOCK.exists():
        return None
    lock: Any = read_yaml(LOCK)
    for level in ("stages", "fetch", "params", str(PARAMS), "base_model"):
        lock = lock.get(level) if isinstance(lock, dict) else None
    return without_nulls(lock) if isinstance(lock, dict) else None


def without_nulls(base_model: dict[str, Any]) -> dict[str, Any]:
    """The fields with a value; fields that are new in the schema are missing in an older lock."""
    return {name: value for name, value in base_model.items() if value is not None}


def outline_of(recipe: Recipe) -> "PeftModel | None":
    """The base model with the recipe's adapter, without weights; None if its shape is unknown before it is fetched.

    Raises:
        InputError: the adapter does not fit the model, its folder has no model, or it is not supported.
    """
    from stages.train.adapter import outline  # torch and peft: seconds
    from tunepress.models import architectures
    from tunepress.models.hf_model import check

    base_model, adapter = recipe.params.base_model, recipe.params.adapter
    if recipe.base_fetched:
        architectures.check(BASE)
        return outline(BASE, adapter)
    if base_model.source is Source.folder:
        check(Path(base_model.path or ""))
        architectures.check(Path(base_model.path or ""))
        return outline(Path(base_model.path or ""), adapter)
    fields = config_fields(base_model)
    return outline_from_config(fields, recipe) if fields else None


def config_fields(base_model: BaseModel) -> dict[str, Any] | None:
    """The fields of the model's transformers config, if they are known."""
    if base_model.source is Source.random:
        return base_model.architecture
    return KNOWN.get(base_model.name.rpartition("/")[2])


def outline_from_config(fields: dict[str, Any], recipe: Recipe) -> "PeftModel":
    """The outline of a config; an empty file replaces the weights, which an outline does not read."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    from stages.train.adapter import outline
    from tunepress.models import architectures

    others = dict(fields)
    config = AutoConfig.for_model(others.pop("model_type"), **others)
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__]
    with TemporaryDirectory() as scratch:
        config.save_pretrained(scratch)
        (Path(scratch) / "model.safetensors").touch()
        architectures.check(Path(scratch))
        return outline(Path(scratch), recipe.params.adapter)
