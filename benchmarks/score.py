"""Counts a model's right answers on the test rows: the same code for every contender.

    python -m benchmarks.score REPORT              # of the adapter in models/adapter, merged by peft into models/merged
    python -m benchmarks.score REPORT FOLDER       # of an ONNX model's folder

Runs in a folder laid out like the project, after training: reads models/base, models/adapter and data/prepared.
"""

import sys
from pathlib import Path

from omegaconf import OmegaConf
from peft import PeftModel

from tunepress.core.files import read_jsonl, write_json
from tunepress.core.paths import ADAPTER, BASE, MERGED, PREPARED
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.torch_model import TorchModel
from tunepress.models.hf_model import load_model, load_tokenizer
from tunepress.text.labels import find_label
from tunepress.text.prompt import Prompt


def main(report: Path, onnx: Path | None = None) -> None:
    """Asks and counts."""
    prompt = Prompt.load(PREPARED)
    rows = read_jsonl(PREPARED / "test.jsonl")
    model = OnnxModel(onnx) if onnx else merged()
    answers = model.answers([row["prompt"] for row in rows], prompt.max_new_tokens)
    right = sum(find_label(answer, prompt.labels or ()) == row["expected"] for answer, row in zip(answers, rows, strict=True))
    write_json(report, {"right": right, "test_rows": len(rows)})


def merged() -> TorchModel:
    """The adapter and the base model as one."""
    model = PeftModel.from_pretrained(load_model(BASE), ADAPTER).merge_and_unload(safe_merge=True)
    model.save_pretrained(MERGED)
    load_tokenizer(BASE).save_pretrained(MERGED)
    return TorchModel(MERGED, int(OmegaConf.load("params.yaml").evaluate.batch_size))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
