"""The memory that a training is said to need; what is free is tested with cgroups."""

import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.train import estimate
from stages.train import stage as train
from tests.stages.training import sections


@pytest.fixture
def needed(inside: Path, root: Path) -> Any:
    """The estimate for some settings, in bytes."""

    def needed_bytes(adapter: dict[str, Any] | None = None, **settings: Any) -> int:
        cfg = sections(root, adapter=adapter, **settings)
        return train.make_plan(cfg, train.read_examples(cfg.train)["train"]).needed

    return needed_bytes


def test_more_to_keep_needs_more(needed: Any) -> None:
    plain = needed()
    assert needed(per_device_train_batch_size=8) > plain
    assert needed(adapter={"r": 16}) > plain
    assert needed(completion_only_loss=False) > plain


def test_what_saves_memory_is_said_to(needed: Any) -> None:
    plain = needed()
    assert needed(gradient_checkpointing=True) < plain
    assert needed(bf16=True) < plain
    assert needed(optim="sgd") < needed(optim="adamw_bnb_8bit") < plain


def test_the_estimate_is_near_what_the_training_took(needed: Any, root: Path) -> None:
    train.main(sections(root, max_steps=1))
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit  # of all tests in this process so far
    assert needed() < 1.1 * peak
    assert needed() > estimate.RUNTIME


def test_weights_in_4_bits_need_room_for_one_as_floats() -> None:
    small, large = 1 << 20, 1 << 30
    assert estimate.dequantized_bytes([small, large], on_cpu=False) == 2 * large
    assert estimate.dequantized_bytes([small, large], on_cpu=True) == 2 * (large + small)
    assert estimate.dequantized_bytes([], on_cpu=True) == 0
