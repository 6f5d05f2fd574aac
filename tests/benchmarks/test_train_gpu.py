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

from benchmarks.models import SHAPES
from benchmarks.train_gpu import __main__ as train_gpu
from benchmarks.train_gpu import attention, contender
from benchmarks.train_gpu.rows import padded_count, sequences
from stages.train.trainer import BY_EXAMPLE, attention_by_example
from tunepress.text.packing import token_count
from tunepress.text.tokenizer import IGNORE_INDEX

LOG_OF_VOCABULARY = 5.77  # a random model's loss
EXAMPLES = torch.tensor([0, 5, 18, 20], dtype=torch.int32)


SETTINGS = {"shape": "tiny", "steps": 2, "warmup": 1, "batch": 2, "compile": False, "liger": False, "attn": BY_EXAMPLE}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The figures of some processes' work, done in this one."""
    figures = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("train_gpu"))
        figures["device"] = contender.device("tiny")
        for name in ("lora", "qlora-checkpointing", "trainer-lora"):
            figures[name] = contender.measure(contender=name, **SETTINGS)
    return figures


def test_figures(measured: dict[str, dict[str, Any]]) -> None:
    assert measured["device"]["matrix_tflops"] > 0
    for method in ("lora", "qlora-checkpointing", "trainer-lora"):
        figures = measured[method]
        for name in ("tokens_per_second", "seconds_per_step", "flops_per_token", "model_tflops", "peak_gb"):
            assert figures[name] > 0, (method, name)
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
    contenders = {"lora": lora, "qlora": {"failed": "out of memory"}, "trainer-lora": {"failed": "exit code 1: no kernel"}}
    console = Console(width=120)
    with console.capture() as captured:
        console.print(*train_gpu.report({"device": device, "settings": SETTINGS, "contenders": contenders}))
    output = captured.get()
    assert "lora" in output and "out of memory" in output and f"{lora['tokens_per_second']:,.0f}" in output
    assert output.splitlines()[-1] == "exit code 1: no kernel"
    assert train_gpu.failure({"contenders": contenders}) is None
    assert train_gpu.failure({"contenders": {"qlora": contenders["qlora"]}}) == "every contender failed"


def test_too_little_memory_is_a_result_and_another_error_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: contender.Job) -> Any:
        raise RuntimeError("CUDA out of memory." if job.plain else "no kernel")

    monkeypatch.setattr(contender, "train_contender", fail)
    assert contender.measure(contender="trainer-lora", **SETTINGS) == {"failed": "out of memory"}
    with pytest.raises(RuntimeError, match="no kernel"):
        contender.measure(contender="lora", **SETTINGS)


def test_rows() -> None:
    shape = SHAPES["phi3-mini"]
    learned = sequences(shape, 12, seed=3)
    assert learned == sequences(shape, 12, seed=3) != sequences(shape, 12, seed=4)
    lengths = [len(example["input_ids"]) for sequence in learned for example in sequence]
    assert len(learned) == 12 and all(token_count(sequence) <= shape.tokens for sequence in learned)
    assert shape.shortest <= min(lengths) < shape.median < max(lengths) <= shape.longest
    assert padded_count(learned) == len(lengths) * max(lengths) > sum(map(token_count, learned)) == sum(lengths)
    labels = learned[0][0]["labels"]
    assert sum(label != IGNORE_INDEX for label in labels) == len(labels) // 4 and labels[-1] != IGNORE_INDEX


@pytest.mark.parametrize("window", [None, 4, 13])
def test_varlen_computes_attention_by_example(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        """What the GPU's kernel is documented to do."""
        (left, right), parts = named["window_size"], []
        for start, end in pairwise(rest[0].tolist()):
            seen = torch.ones(end - start, end - start, dtype=torch.bool).tril(right)
            seen = seen if left < 0 else seen.triu(-left)
            q, k, v = (states[start:end].transpose(0, 1)[None] for states in (query, key, value))
            parts.append(scaled_dot_product_attention(q, k, v, seen, scale=named["scale"])[0].transpose(0, 1))
        return torch.cat(parts)

    monkeypatch.setattr(attention, "varlen_attn", reference)
    q, k, v = torch.randn(3, 1, 2, 20, 8, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"cu_seq_lens_q": EXAMPLES, "sliding_window": window, "scaling": 0.3, "max_length_q": 13}
    expected, _ = attention_by_example(torch.nn.Module(), q, k, v, None, **options)
    computed, _ = attention.attention_varlen(torch.nn.Module(), q, k, v, None, **options)
    assert torch.allclose(computed, expected, atol=1e-6)
    assert attention.VARLEN.startswith(BY_EXAMPLE)  # otherwise it does not get the boundaries


def test_needs_a_gpu(root: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_gpu"],
        cwd=root,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.count("\n") == 1 and "GPU" in ended.stderr
