import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import train_gpu, train_gpu_attention, train_gpu_contender
from benchmarks.train_gpu_job import Job
from benchmarks.train_gpu_shapes import SHAPES, padded_count, sequences, token_count
from stages.train.trainer import BY_EXAMPLE, attention_by_example
from tunepress.text.tokenizer import IGNORE_INDEX

LOG_OF_VOCABULARY = 5.77  # a random model's loss
EXAMPLES = torch.tensor([0, 5, 18, 20], dtype=torch.int32)


def job(contender: str) -> Job:
    return Job(contender, "tiny", steps=2, warmup=1, batch=2, compile=False, liger=False, attn=BY_EXAMPLE)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The figures of some processes' work, done in this one."""
    figures = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("train_gpu"))
        for name in ("device", "lora", "qlora-checkpointing", "trainer-lora"):
            patch.setattr(sys, "argv", ["", json.dumps(vars(job(name))), f"{name}.json"])
            train_gpu_contender.main()
            figures[name] = json.loads(Path(f"{name}.json").read_text())
    return figures


def test_figures(measured: dict[str, dict[str, Any]]) -> None:
    assert measured["device"]["matrix_tflops"] > 0
    for contender in ("lora", "qlora-checkpointing", "trainer-lora"):
        figures = measured[contender]
        for name in ("tokens_per_second", "seconds_per_step", "flops_per_token", "model_tflops", "peak_gb"):
            assert figures[name] > 0, (contender, name)
        assert figures["first_loss"] == pytest.approx(LOG_OF_VOCABULARY, abs=0.2)
    assert measured["lora"]["padding"] == 0 < measured["trainer-lora"]["padding"] < 1


def test_contenders_learn_the_same_rows(measured: dict[str, dict[str, Any]]) -> None:
    ours, plain = measured["lora"], measured["trainer-lora"]
    assert ours["first_loss"] == pytest.approx(plain["first_loss"], abs=1e-4)
    assert ours["last_loss"] == pytest.approx(plain["last_loss"], abs=1e-3)
    assert ours["flops_per_token"] == plain["flops_per_token"] == measured["qlora-checkpointing"]["flops_per_token"]


def test_flops_of_a_token(measured: dict[str, dict[str, Any]]) -> None:
    hidden, inner, rank = 64, 128, SHAPES["tiny"].rank
    linear = [(hidden, 3 * hidden), (hidden, hidden), (hidden, 2 * inner), (inner, hidden)]
    frozen, adapter = (2 * sum(size) for size in ([a * b for a, b in linear], [rank * (a + b) for a, b in linear]))
    assert measured["lora"]["flops_per_token"] == 4 * frozen + 6 * adapter


def test_table_says_why_a_contender_has_no_figures(measured: dict[str, dict[str, Any]]) -> None:
    device, lora = measured["device"], dict(measured["lora"])
    train_gpu.add_share(lora, device)
    asked = train_gpu.parse(["--shape", "tiny"])
    console = Console(width=120)
    with console.capture() as captured:
        console.print(train_gpu.table(asked, device, {"lora": lora, "qlora": {"failed": "out of memory"}}))
    said = captured.get()
    assert "lora" in said and "out of memory" in said and f"{lora['tokens_per_second']:,.0f}" in said


def test_rows() -> None:
    shape = SHAPES["phi3-mini"]
    learned = sequences(shape, 12, seed=3)
    assert learned == sequences(shape, 12, seed=3) != sequences(shape, 12, seed=4)
    lengths = [len(example["input_ids"]) for sequence in learned for example in sequence]
    assert len(learned) == 12 and all(token_count([sequence]) <= shape.tokens for sequence in learned)
    assert shape.shortest <= min(lengths) < shape.median < max(lengths) <= shape.longest
    assert padded_count(learned) == len(lengths) * max(lengths) > token_count(learned) == sum(lengths)
    labels = learned[0][0]["labels"]
    assert sum(label != IGNORE_INDEX for label in labels) == len(labels) // 4 and labels[-1] != IGNORE_INDEX


@pytest.mark.parametrize("window", [None, 4, 13])
def test_varlen_is_asked_for_attention_by_example(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        """What the GPU's kernel is documented to do."""
        (left, right), parts = named["window_size"], []
        for start, end in pairwise(rest[0].tolist()):
            seen = torch.ones(end - start, end - start, dtype=torch.bool).tril(right)
            seen = seen if left < 0 else seen.triu(-left)
            q, k, v = (states[start:end].transpose(0, 1)[None] for states in (query, key, value))
            parts.append(scaled_dot_product_attention(q, k, v, seen, scale=named["scale"])[0].transpose(0, 1))
        return torch.cat(parts)

    monkeypatch.setattr(train_gpu_attention, "varlen_attn", reference)
    q, k, v = torch.randn(3, 1, 2, 20, 8, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"cu_seq_lens_q": EXAMPLES, "sliding_window": window, "scaling": 0.3, "max_length_q": 13}
    expected, _ = attention_by_example(torch.nn.Module(), q, k, v, None, **options)
    found, _ = train_gpu_attention.attention_varlen(torch.nn.Module(), q, k, v, None, **options)
    assert torch.allclose(found, expected, atol=1e-6)
    assert train_gpu_attention.VARLEN.startswith(BY_EXAMPLE)  # else no one tells it the boundaries


def test_wants_a_gpu(root: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_gpu"],
        cwd=root,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.count("\n") == 1 and "GPU" in ended.stderr
