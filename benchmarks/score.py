"""Counts a model's right answers on the test rows: the same code for every contender of benchmarks.train and benchmarks.olive.

Both tasks run in a folder laid out like the project, after training: they read models/base, models/adapter and data/prepared.
"""

from pathlib import Path
from typing import Any, Protocol

from omegaconf import OmegaConf
from peft import PeftModel

from tunepress.core.files import read_jsonl
from tunepress.core.paths import ADAPTER, BASE, MERGED, PREPARED
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.torch_model import TorchModel
from tunepress.models.hf_model import load_model, load_tokenizer
from tunepress.text.labels import find_label
from tunepress.text.prompt import Prompt
from tunepress.text.segments import evaluated


class Model(Protocol):
    def answers(self, prompts: list[str], max_new_tokens: int) -> list[str]: ...


def adapter() -> dict[str, Any]:
    """Merges models/adapter into models/merged with peft, and counts."""
    model = PeftModel.from_pretrained(load_model(BASE), ADAPTER).merge_and_unload(safe_merge=True)
    model.save_pretrained(MERGED)
    load_tokenizer(BASE).save_pretrained(MERGED)
    return count(TorchModel(MERGED, int(OmegaConf.load("params.yaml").evaluate.batch_size)))


def onnx(model: str) -> dict[str, Any]:
    """Counts for the ONNX model in a folder."""
    return count(OnnxModel(Path(model)))


def count(model: Model) -> dict[str, Any]:
    prompt = Prompt.load(PREPARED)
    turns = evaluated(read_jsonl(PREPARED / "test.jsonl"), all_turns=False)
    answers = model.answers([turn.prompt for turn in turns], prompt.max_new_tokens)
    right = sum(find_label(answer, prompt.labels or ()) == turn.expected for answer, turn in zip(answers, turns, strict=True))
    return {"right": right, "test_rows": len(turns)}
