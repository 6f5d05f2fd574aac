"""A base model in 16 bits that is trained in float32: in half the memory, with the same adapter."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.train import estimate
from stages.train import stage as train
from tests.stages.training import hashes, new_project, refusal, sections
from tests.tunepress.models.twins import TWINS, twin
from tunepress.core.cgroups import UNLIMITED
from tunepress.core.paths import PREPARED

ALL = {"target_modules": "all-linear"}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def make(inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[torch.dtype], None]:
    """Makes the working folder a project with the shared project's rows and a base model of a type."""

    def make(dtype: torch.dtype) -> None:
        prepared = new_project(tmp_path, twin(tmp_path / "base", TWINS["llama"], dtype))
        shutil.copytree(inside / PREPARED, prepared, dirs_exist_ok=True)
        monkeypatch.chdir(tmp_path)

    return make


def leave_too_little(cfg: train.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The free memory becomes a byte less than the training needs in float32."""
    monkeypatch.setattr(estimate, "available_bytes", lambda: UNLIMITED)
    examples = train.read_examples(cfg.train)
    needed = train.make_plan(cfg, examples["train"], examples["validation"]).needed
    monkeypatch.setattr(estimate, "available_bytes", lambda: needed - 1)


@pytest.mark.parametrize(
    ("adapter", "settings"),
    [
        ({"target_modules": ["q_proj", "down_proj"], "lora_dropout": 0.1}, {}),
        ({"method": "rslora", **ALL}, {"gradient_checkpointing": True}),
        ({"init_lora_weights": "gaussian", **ALL}, {}),
    ],
    ids=["some layers", "all layers, checkpointed", "an initialisation"],
)
def test_where_float32_does_not_fit_the_adapter_is_the_same(
    adapter: dict[str, Any],
    settings: dict[str, Any],
    make: Callable[[torch.dtype], None],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(torch.bfloat16)
    cfg = sections(root, adapter=adapter, **settings)
    train.main(cfg)
    assert "16 bits" not in capsys.readouterr().out
    expected = hashes()
    leave_too_little(cfg, monkeypatch)
    train.main(cfg)
    assert "the base model in 16 bits, to save memory (with the same result)" in capsys.readouterr().out
    assert hashes() == expected


@pytest.mark.parametrize(
    ("dtype", "adapter", "settings"),
    [
        (torch.float32, ALL, {}),
        (torch.bfloat16, {"method": "dora", **ALL}, {}),
        (torch.bfloat16, {"init_lora_weights": "olora", **ALL}, {}),
        (torch.bfloat16, {"init_lora_weights": "orthogonal", **ALL}, {}),
        (torch.bfloat16, ALL, {"num_processes": 2}),
        (torch.bfloat16, ALL, {"torch_compile": True}),
    ],
    ids=["32 bits", "dora", "olora", "orthogonal", "two processes", "compiled"],
)
def test_what_16_bits_would_change_is_refused_where_float32_does_not_fit(
    dtype: torch.dtype,
    adapter: dict[str, Any],
    settings: dict[str, Any],
    make: Callable[[torch.dtype], None],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make(dtype)
    cfg = sections(root, adapter=adapter, **settings)
    leave_too_little(cfg, monkeypatch)
    assert refusal(cfg).startswith("needs about ")
