"""merge: adds the adapter to the base model's weights and writes the result as a plain Hugging Face model."""

import sys
from dataclasses import dataclass

from peft import PeftModel

from stages.lib.checkpoint import load_model, load_tokenizer
from stages.lib.edge.outputs import replacing, size_mb, write_json
from stages.lib.edge.paths import ADAPTER, BASE, MERGED, METRICS
from stages.lib.edge.stage import run
from stages.lib.prompt import Prompt
from stages.lib.schema.merge import Merge


@dataclass
class Sections:
    """What this stage reads of params.yaml."""

    merge: Merge


def main(cfg: Sections) -> str:
    """Merges models/base and models/adapter into models/merged."""
    adapted = PeftModel.from_pretrained(load_model(BASE), ADAPTER)
    modules = sum(hasattr(module, "merge") for module in adapted.base_model.model.modules())
    merged = adapted.merge_and_unload(safe_merge=True)  # safe_merge: an adapter with NaN is an error
    with replacing(MERGED) as partial:
        merged.save_pretrained(partial, max_shard_size=cfg.merge.max_shard_size)
        load_tokenizer(BASE).save_pretrained(partial)
        Prompt.load(ADAPTER).save(partial)
    write_json(METRICS / "merge.json", {"merged_modules": modules, "size_mb": size_mb(MERGED)})
    return f"{modules} modules merged in {MERGED} ({size_mb(MERGED):.0f} MB)"


if __name__ == "__main__":
    run("merge", main, Sections, sys.argv[1:])
