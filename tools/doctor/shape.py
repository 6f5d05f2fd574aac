"""The shape of the recipe's base model, as far as it is known before the model is there."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tools.doctor.recipe import Recipe
from tunepress.config.base_model import BaseModel, Source
from tunepress.core.paths import BASE

if TYPE_CHECKING:
    from peft import PeftModel

KNOWN: dict[str, dict[str, Any]] = {  # by base_model.name without its owner, in transformers' words
    "Phi-3-mini-4k-instruct": {"model_type": "phi3", "dtype": "bfloat16"},  # the defaults of Phi3Config are its shape
    "SmolLM2-135M-Instruct": {
        "model_type": "llama",
        "dtype": "float32",  # as fetch writes it
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
}


def outlined(recipe: Recipe) -> "PeftModel | None":
    """The base model with the recipe's adapter, without weights; None where its shape is not known before it is fetched.

    Raises:
        InputError: the adapter does not fit the model, the folder that it comes from holds none, or it is not supported.
    """
    from stages.train.adapter import outline  # torch and peft: seconds
    from tunepress.models import architectures
    from tunepress.models.hf_model import check

    base_model, adapter = recipe.params.base_model, recipe.params.adapter
    if recipe.base_at_hand:
        architectures.check(BASE)
        return outline(BASE, adapter)
    if base_model.source is Source.folder:
        check(Path(base_model.path or ""))
        architectures.check(Path(base_model.path or ""))
        return outline(Path(base_model.path or ""), adapter)
    fields = fields_of(base_model)
    return of_fields(fields, recipe) if fields else None


def fields_of(base_model: BaseModel) -> dict[str, Any] | None:
    """The fields of the model's transformers config."""
    if base_model.source is Source.random:
        return base_model.architecture
    return KNOWN.get(base_model.name.rpartition("/")[2])


def of_fields(fields: dict[str, Any], recipe: Recipe) -> "PeftModel":
    """The adapted model of a config; an empty file stands for the weights, of which an outline reads none."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    from stages.train.adapter import outline
    from tunepress.models import architectures

    given = dict(fields)
    config = AutoConfig.for_model(given.pop("model_type"), **given)
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__]
    with TemporaryDirectory() as scratch:
        config.save_pretrained(scratch)
        (Path(scratch) / "model.safetensors").touch()
        architectures.check(Path(scratch))
        return outline(Path(scratch), recipe.params.adapter)
