"""What a training says before it starts, and while it runs, is what it then does."""

import re
from pathlib import Path
from typing import Any

import pytest

from stages import train
from stages.lib import plan as plans
from stages.lib.edge.paths import ADAPTER
from stages.lib.padding_free import PaddingFreeTrainer
from tests.stages.training import metrics, refusal, sections

pytestmark = pytest.mark.usefixtures("inside")


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[PaddingFreeTrainer]:
    """The trainers that have trained."""
    seen: list[PaddingFreeTrainer] = []
    outcome = train.outcome

    def noted(trainer: PaddingFreeTrainer) -> dict[str, Any]:
        seen.append(trainer)
        return outcome(trainer)

    monkeypatch.setattr(train, "outcome", noted)
    return seen


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 5, "num_train_epochs": 1.5},
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 4, "num_train_epochs": 2.5},
        {"max_steps": 3},
        {"num_train_epochs": 2, "max_steps": 5},
    ],
    ids=str,
)
def test_the_figures_are_those_of_the_training(
    settings: dict[str, Any], root: Path, trainers: list[PaddingFreeTrainer], capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = sections(root, **settings)
    plan = train.make_plan(cfg, train.read_examples(cfg.train)["train"])
    train.main(cfg)
    assert capsys.readouterr().out.startswith(f"train: {plan}, about ")
    assert plan.steps == metrics()["steps"]
    assert plan.trainable == metrics()["trainable_parameters"]
    assert plan.parameters == metrics()["parameters"]
    assert plan.sequences == 16
    assert plan.sequences_a_step == cfg.train.per_device_train_batch_size * cfg.train.gradient_accumulation_steps


def test_an_epochs_tokens_are_those_that_the_training_counts(root: Path, trainers: list[PaddingFreeTrainer]) -> None:
    cfg = sections(root)
    plan = train.make_plan(cfg, train.read_examples(cfg.train)["train"])
    train.main(cfg)
    assert trainers[0].state.num_input_tokens_seen == plan.tokens


def test_several_processes_take_fewer_steps(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(**settings: Any) -> int:
        cfg = sections(root, per_device_train_batch_size=3, num_train_epochs=2, **settings)
        return train.make_plan(cfg, train.read_examples(cfg.train)["train"]).steps

    assert steps() == 12
    assert steps(num_processes=2) == 6
    assert steps(num_processes=2, gradient_accumulation_steps=2) == 4
    monkeypatch.setenv("PET_NNODES", "2")
    assert steps(num_processes=2) == 4


def free(giga: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "available_bytes", lambda: int(giga * 1e9))


def test_a_training_that_does_not_fit_is_refused_with_what_would_help(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(0.1, monkeypatch)
    said = refusal(sections(root))
    assert re.fullmatch(r"needs about \d+\.\d GB of memory and 0\.1 GB are free; try .*", said)
    cures = said.partition("; try ")[2].split(" or ")
    assert cures == [
        "a smaller train.per_device_train_batch_size than 4",
        "train.gradient_checkpointing=true",
        "adapter=qlora",
        "train.bf16=true",
    ]
    assert not ADAPTER.exists()


def test_only_what_is_not_yet_done_is_advised(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(0.1, monkeypatch)
    done: dict[str, Any] = {"per_device_train_batch_size": 1, "gradient_checkpointing": True, "bf16": True}
    assert refusal(sections(root, adapter={"method": "qlora"}, **done)).endswith("; try a smaller data.source_max_len")


def test_processes_on_one_cpu_need_their_memory_together(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = train.make_plan(sections(root), []).needed
    assert train.make_plan(sections(root, num_processes=3), []).needed == 3 * one
    free(one / 1e9 + 0.01, monkeypatch)
    assert "adapter=qlora" in refusal(sections(root, num_processes=3))  # before any of them is started
    train.main(sections(root, max_steps=1))


def test_a_user_sees_losses_speed_and_the_time_left(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main(sections(root))
    bar = re.split(r"[\r\n]+", capsys.readouterr().err)
    last = next(line for line in reversed(bar) if line.startswith("train: 100%"))
    assert re.search(r"4/4 \[\d\d:\d\d<\d\d:\d\d, .*, loss=\d+\.\d{4}, tokens/s=[\d,]+, eval_loss=\d+\.\d{4}\]", last), last
