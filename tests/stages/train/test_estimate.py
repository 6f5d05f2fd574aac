"""What a training says before it starts, and while it runs, is what it then does."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from stages.train import estimate
from stages.train import stage as train
from stages.train.trainer import PaddingFreeTrainer
from tests.stages.training import metrics, refusal, sections
from tunepress.core.paths import ADAPTER

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


def plan_of(cfg: train.Config) -> estimate.Plan:
    examples = train.read_examples(cfg.train)
    return train.make_plan(cfg, examples["train"], examples["validation"])


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
    plan = plan_of(cfg)
    train.main(cfg)
    assert capsys.readouterr().out.startswith(f"train: {plan}, about ")
    assert plan.learned == pytest.approx(trainers[0].state.num_input_tokens_seen, rel=0.1)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "validations"),
    [
        ({}, 2),
        ({"eval_steps": 3}, 2),
        ({"eval_steps": 0.2}, 4),
        ({"eval_steps": 0.3}, 2),
        ({"eval_steps": 100}, 1),
        ({"eval_steps": None, "logging_steps": 3}, 2),
        ({"eval_steps": 0.2, "num_train_epochs": 2.5}, 5),
        ({"eval_strategy": "epoch", "num_train_epochs": 2.5}, 3),
        ({"eval_strategy": "epoch", "max_steps": 5}, 2),
        ({"eval_strategy": "no"}, 1),
    ],
    ids=str,
)
def test_the_validations_that_are_told_are_those_of_the_training(
    settings: dict[str, Any], validations: int, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = []
    evaluate = PaddingFreeTrainer.evaluate

    def counted(trainer: PaddingFreeTrainer, *arguments: Any, **options: Any) -> dict[str, float]:
        scored.append(trainer.state.global_step)
        return evaluate(trainer, *arguments, **options)

    monkeypatch.setattr(PaddingFreeTrainer, "evaluate", counted)
    cfg = sections(root, **settings)
    plan = plan_of(cfg)
    train.main(cfg)
    assert len(set(scored)) == len(scored) == validations == plan.validations
    tokens = sum(len(sequence[0]["input_ids"]) for sequence in train.read_examples(cfg.train)["validation"])
    assert plan.validation_tokens == tokens
    count = f"{validations} validation{'s' if validations > 1 else ''} of {tokens} tokens"
    assert re.search(rf", {count} \(about \d+% of the time\), about ", capsys.readouterr().out)


def test_a_share_of_all_steps_costs_a_large_training_no_more_than_a_small_one(root: Path) -> None:
    def planned(rows: int, **settings: Any) -> estimate.Plan:
        example = {"input_ids": [1] * 10, "labels": [1] * 10}
        return train.make_plan(sections(root, **settings), [[example]] * rows, [[example]] * (rows // 20))

    default: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(root / "conf/train/default.yaml"))  # type: ignore[assignment]
    shares = {name: default[name] for name in ("eval_strategy", "eval_steps", "save_steps")}
    small, large = planned(960, **shares), planned(96_000, **shares)
    assert small.validations == large.validations == 5
    assert small.validation_share == pytest.approx(large.validation_share) == pytest.approx(0.25 / 2.25)
    assert planned(96_000, eval_steps=40).validation_share > 0.9


def test_without_validation_rows_none_are_told(root: Path) -> None:
    plan = train.make_plan(sections(root), train.read_examples(sections(root).train)["train"])
    assert plan.validations == plan.validation_share == 0
    assert "validation" not in str(plan)


def test_checkpointing_makes_a_validation_a_smaller_share(root: Path) -> None:
    plain, checkpointed = plan_of(sections(root)), plan_of(sections(root, gradient_checkpointing=True))
    assert 0 < checkpointed.validation_share < plain.validation_share < 1


def test_the_time_left_follows_from_the_tokens_and_the_validations(root: Path) -> None:
    plan = plan_of(sections(root, max_steps=8, eval_strategy="epoch"))
    forwards = plan.validations * plan.validation_tokens / 2
    assert plan.seconds_left(0, 10.0) == pytest.approx((plan.learned + forwards) / 10)
    assert plan.seconds_left(6, 10.0) == pytest.approx((plan.learned + forwards) / 40)
    assert plan.seconds_left(8, 10.0) == 0


def test_the_time_of_the_training_is_told_once_after_its_first_steps(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main(sections(root, num_train_epochs=2))
    output = re.findall(r"^train: about (\d+) s left with all validations, at the ([\d,]+) tokens/s of the first steps$",
                      capsys.readouterr().out, re.MULTILINE)  # fmt: skip
    assert len(output) == 1
    train.main(sections(root, max_steps=4))
    assert " left with" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "about 1 s"), (89, "about 89 s"), (90, "about 2 min"), (7230, "about 120 min")]
)
def test_a_time_is_told_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert estimate.duration(seconds) == text


def free(giga: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "available_bytes", lambda: int(giga * 1e9))


def test_a_training_that_does_not_fit_is_refused_with_what_would_help(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(0.1, monkeypatch)
    message = refusal(sections(root))
    assert re.fullmatch(r"needs about \d+\.\d GB of memory and 0\.1 GB are free; try .*", message)
    cures = message.partition("; try ")[2].split(" or ")
    assert cures == [
        "a smaller train.per_device_train_batch_size than 4",
        "train.gradient_checkpointing=true",
        "adapter=qlora",
        "train.bf16=true",
        "train.check_memory=false",
    ]
    assert not ADAPTER.exists()


def test_a_user_may_train_where_memory_seems_short(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free(0.1, monkeypatch)
    train.main(sections(root, max_steps=1, check_memory=False))
    assert re.search(r", about \d+\.\d of 0\.1 GB free memory$", capsys.readouterr().out, re.MULTILINE)
    assert metrics()["steps"] == 1


def test_only_what_is_not_yet_done_is_advised(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(0.1, monkeypatch)
    done: dict[str, Any] = {"per_device_train_batch_size": 1, "gradient_checkpointing": True, "bf16": True}
    assert refusal(sections(root, adapter={"method": "qlora"}, **done)).endswith(
        "; try a smaller data.source_max_len or train.check_memory=false"
    )


def test_processes_on_one_cpu_need_their_memory_together(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = train.make_plan(sections(root), []).needed
    assert train.make_plan(sections(root, num_processes=3), []).needed == 3 * single
    free(single / 1e9 + 0.01, monkeypatch)
    assert "adapter=qlora" in refusal(sections(root, num_processes=3))  # before any of them is started
    train.main(sections(root, max_steps=1))


def test_a_user_sees_losses_speed_and_the_time_left(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main(sections(root))
    bar = re.split(r"[\r\n]+", capsys.readouterr().err)
    last = next(line for line in reversed(bar) if line.startswith("train: 100%"))
    assert re.search(r"4/4 \[\d\d:\d\d<\d\d:\d\d, .*, loss=\d+\.\d{4}, tokens/s=[\d,]+, eval_loss=\d+\.\d{4}\]", last), last


def test_the_time_is_that_of_the_products_of_all_steps_and_validations(root: Path) -> None:
    cfg = sections(root, num_processes=2)
    plan = plan_of(cfg)
    assert plan.validations and plan.validation_tokens
    work = plan.learned * estimate.passes(cfg.train) + plan.validations * plan.validation_tokens
    assert plan.seconds(1e9) == pytest.approx(2 * plan.parameters * work / 1e9 / estimate.EFFICIENCY / 2)
    assert estimate.product_rate(torch.float32) > 1e8


def test_the_time_is_told_before_the_first_step(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main(sections(root))
    assert re.search(r"^train: .* about \d+ (s|min) here, about .* GB free memory$", capsys.readouterr().out, re.MULTILINE)
