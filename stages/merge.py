"""merge: adds the adapter to the base model's weights and writes the result as a plain Hugging Face model."""

import sys
from dataclasses import dataclass

from peft import PeftModel
from transformers import PreTrainedModel

from stages.lib.checkpoint import load_model, load_tokenizer
from stages.lib.edge.errors import InputError
from stages.lib.edge.outputs import replacing, size_mb, write_json
from stages.lib.edge.paths import ADAPTER, BASE, MERGED, METRICS
from stages.lib.edge.stage import run
from stages.lib.prompt import Prompt
from stages.lib.quantization import Quantization
from stages.lib.schema.merge import Merge, MergeBase


@dataclass
class Sections:
    """What this stage reads of params.yaml."""

    merge: Merge


def main(cfg: Sections) -> str:
    """Merges models/base and models/adapter into models/merged."""
    adapted = PeftModel.from_pretrained(load_base(cfg.merge.base), ADAPTER)
    modules = sum(hasattr(module, "merge") for module in adapted.base_model.model.modules())
    merged = adapted.merge_and_unload(safe_merge=True)  # safe_merge: an adapter with NaN is an error
    with replacing(MERGED) as partial:
        merged.save_pretrained(partial, max_shard_size=cfg.merge.max_shard_size)
        load_tokenizer(BASE).save_pretrained(partial)
        Prompt.load(ADAPTER).save(partial)
    write_json(METRICS / "merge.json", {"merged_modules": modules, "size_mb": size_mb(MERGED)})
    return f"{modules} modules merged in {MERGED} ({size_mb(MERGED):.0f} MB)"


def load_base(base: MergeBase) -> PreTrainedModel:
    """The weights that the adapter is added to.

    Raises:
        InputError: the adapter makes up for a quantization that these weights have not gone through.
    """
    quantization = Quantization.load(ADAPTER)
    if base is MergeBase.original and quantization and quantization.compensated:
        raise InputError("merge.base: an adapter initialised by loftq fits the rounded weights only; set merge.base=dequantized")
    model = load_model(BASE)
    if base is MergeBase.dequantized and quantization:
        quantization.round_trip(model)
    return model


if __name__ == "__main__":
    run("merge", main, Sections, sys.argv[1:])
