"""Every stage on a model of full size: the tiny shape passes all of them, and the table shows each."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from benchmarks import full_size, gpu
from benchmarks.models import limit_vocabulary
from tunepress.core.files import read_json


def output(module: str, root: Path, scratch: Path, *options: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{module}", "--shape", "tiny", *options]
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1", "HOME": str(scratch)}
    ended = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_every_stage_of_the_tiny_shape_is_measured(root: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    shown = output("full_size", root, tmp_path, "--experiment", "phi3_mini_laptop", "--output", str(results))
    stages = read_json(results)["stages"]
    assert list(stages) == list(full_size.STAGES)
    assert all(stage in shown and used["peak_memory_mb"] > 0 for stage, used in stages.items())
    assert f"train had planned {stages['train']['planned_gb']:.1f} GB" in shown


@pytest.mark.slow
def test_the_parts_for_a_gpu_run_on_a_cpu(root: Path, tmp_path: Path) -> None:
    shown = output("gpu", root, tmp_path, "--device", "cpu", "--until", "prepare")
    assert "not run" not in shown
    assert "4-bit weights: 0 and, with quantized scales, 0 of 16,777,216 numbers differ between cpu and cpu" in shown
    assert all(name in shown for name in ("qlora", "fetch", "prepare"))


def test_a_part_that_cannot_run_is_reported_with_its_reason() -> None:
    used = {"process_seconds": 1.0, "peak_memory_mb": 10}
    parts = {"training": {"failed": "no module named bitsandbytes"}, "stages": {"fetch": used}}
    codes = {"numbers": 4, "quantized": 1, "double_quantized": 2}
    console = Console(record=True, width=100)
    console.print(*gpu.report({"device": "cuda", **parts, "4-bit weights": codes}, Namespace()))
    assert "training: not run: no module named bitsandbytes" in console.export_text()


def test_a_tokenizer_with_fewer_tokens_has_the_earliest_merges(root: Path) -> None:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer, trained.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False)
    trained.train([str(root / "data/raw/tone.jsonl")], trainer)
    whole = PreTrainedTokenizerFast(tokenizer_object=trained, eos_token="<end>")
    limited, text = limit_vocabulary(whole, 400), "I can't believe you came all this way for my birthday!"
    assert (len(whole), len(limited)) == (600, 400)
    assert limited.eos_token_id == whole.eos_token_id
    assert limited.decode(limited(text).input_ids) == text
    assert len(limited(text).input_ids) > len(whole(text).input_ids)
