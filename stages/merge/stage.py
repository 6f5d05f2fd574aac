"""merge: adds the adapter to the base model's weights and writes the result as an ordinary Hugging Face model.

The weights are copied from file to file a few rows at a time, so a model of any size needs little memory.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME

from stages.merge.changes import Changes, plan_changes
from tunepress.config.merge import LOFTQ_ON_ORIGINAL_WEIGHTS, Merge, MergeBase
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output, read_json, size_mb, write_json
from tunepress.core.paths import ADAPTER, BASE, MERGED, METRICS
from tunepress.models.bnb_4bit import Quantization
from tunepress.models.hf_model import empty_model, load_tokenizer, read_eos_token_ids
from tunepress.models.peft_adapter import PeftAdapter
from tunepress.models.shards import Shards
from tunepress.text.chat_template import for_model_folder
from tunepress.text.prompt import FILE_NAME, Prompt


@dataclass
class Config:
    merge: Merge


def main(cfg: Config) -> str:
    """Merges models/base and models/adapter into models/merged."""
    quantization = base_quantization(cfg.merge.base)
    prompt, tokenizer = Prompt.load(ADAPTER), load_tokenizer(BASE)
    model, base = empty_model(BASE), Shards.of(BASE)
    trained = [path.name for path in ADAPTER.iterdir()] != [FILE_NAME]  # with adapter.method=none there is only the prompt
    changes = plan_changes(model, base, PeftAdapter.load(ADAPTER), quantization) if trained else Changes(0, {}, untied=False)
    with atomic_output(MERGED) as partial:
        partial.mkdir()
        base.write(partial, changes.tensors)
        save_configuration(model, changes, prompt.eos_token_ids, partial)
        if prompt.chat_template:
            variables, date = prompt.chat_template_kwargs, prompt.chat_template_date
            tokenizer.chat_template = for_model_folder(prompt.chat_template, variables, date)
        tokenizer.save_pretrained(partial)
        prompt.save(partial)
    write_json(METRICS / "merge.json", {"merged_modules": changes.layers, "size_mb": size_mb(MERGED)})
    return f"{changes.layers} modules merged in {MERGED} ({size_mb(MERGED):.0f} MB)"


def base_quantization(base: MergeBase) -> Quantization | None:
    """The quantization that the base model's weights go through before the adapter is added.

    Raises:
        InputError: the adapter compensates for a quantization, and merge.base leaves it out.
    """
    quantization = Quantization.load(ADAPTER)
    if base is MergeBase.original and quantization and quantization.compensated:
        raise InputError(LOFTQ_ON_ORIGINAL_WEIGHTS)
    return quantization if base is MergeBase.dequantized else None


def save_configuration(model: PreTrainedModel, changes: Changes, eos_token_ids: Sequence[int], folder: Path) -> None:
    """Writes config.json and generation_config.json.

    They are the base model's, except that untied weights are declared as such and that answers end as in training.
    """
    config = model.config
    config.architectures = [type(model).__name__]
    if changes.untied:
        config.tie_word_embeddings = False
    config.save_pretrained(folder)
    if not (BASE / GENERATION_CONFIG_NAME).exists():
        model.generation_config.save_pretrained(folder)
    else:
        shutil.copyfile(BASE / GENERATION_CONFIG_NAME, folder / GENERATION_CONFIG_NAME)
    generation = folder / GENERATION_CONFIG_NAME
    if eos_token_ids and read_eos_token_ids(generation) != list(eos_token_ids):
        write_json(generation, read_json(generation) | {"eos_token_id": list(eos_token_ids)})
