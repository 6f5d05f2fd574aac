"""Counts the right answers of an adapter, merged by peft, on the test rows: the same code for every contender.

    python -m benchmarks.score REPORT

Runs in a folder laid out like the project, after training: reads models/base, models/adapter and data/prepared, and writes
models/merged.
"""

import sys
from pathlib import Path

from omegaconf import OmegaConf
from peft import PeftModel

from stages.lib.checkpoint import load_model, load_tokenizer
from stages.lib.edge.outputs import read_jsonl, write_json
from stages.lib.edge.paths import ADAPTER, BASE, MERGED, PREPARED
from stages.lib.labels import label_of
from stages.lib.prompt import Prompt
from stages.lib.torch_model import TorchModel


def main(report: Path) -> None:
    """Merges, asks and counts."""
    prompt = Prompt.load(PREPARED)
    rows = read_jsonl(PREPARED / "test.jsonl")
    merged = PeftModel.from_pretrained(load_model(BASE), ADAPTER).merge_and_unload(safe_merge=True)
    merged.save_pretrained(MERGED)
    load_tokenizer(BASE).save_pretrained(MERGED)
    batch_size = int(OmegaConf.load("params.yaml").evaluate.batch_size)
    answers = TorchModel(MERGED, batch_size).answers([row["prompt"] for row in rows], prompt.max_new_tokens)
    right = sum(label_of(answer, prompt.labels or ()) == row["expected"] for answer, row in zip(answers, rows, strict=True))
    write_json(report, {"right": right, "test_rows": len(rows)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
