"""LogAtCheckpoints: no sum of losses is under way at a checkpoint, and one at an epoch's end comes after its evaluation."""

from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from stages.train.checkpoints import LogAtCheckpoints


@pytest.mark.parametrize(
    ("eval_strategy", "epoch", "due", "saved_at_step", "logged_at_step", "saved_at_epoch"),
    [
        ("steps", 0.5, [], False, False, False),
        ("steps", 0.5, ["log"], False, True, False),
        ("steps", 0.5, ["save"], True, True, False),
        ("steps", 0.5, ["evaluate"], False, True, False),
        ("steps", 0.5, ["training_stop"], False, True, False),
        ("steps", 1.0, ["save"], True, True, False),
        ("steps", 0.5, ["save", "training_stop"], True, True, False),
        ("epoch", 0.5, ["save"], True, True, False),
        ("epoch", 1.0, ["save"], False, True, True),  # the evaluation of the epoch's end comes first
        ("epoch", 2.0, ["save"], False, True, True),
        ("epoch", 0.5, ["save", "training_stop"], False, True, True),
        ("epoch", 1.0, [], False, False, False),
        ("epoch", 1.0, ["evaluate"], False, True, False),
        ("no", 1.0, ["save"], True, True, False),
    ],
)
def test_a_loss_is_logged_at_each_checkpoint_which_waits_for_an_epochs_evaluation(
    eval_strategy: str,
    epoch: float,
    due: list[str],
    saved_at_step: bool,
    logged_at_step: bool,
    saved_at_epoch: bool,
    tmp_path: Path,
) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), eval_strategy=eval_strategy, report_to="none", use_cpu=True)
    callback, state = LogAtCheckpoints(), TrainerState(epoch=epoch)
    control = TrainerControl(**{f"should_{name}": True for name in due})
    callback.on_step_end(arguments, state, control)
    assert (control.should_save, control.should_log) == (saved_at_step, logged_at_step)
    ended = TrainerControl()
    callback.on_epoch_end(arguments, state, ended)
    assert (ended.should_save, ended.should_log) == (saved_at_epoch, saved_at_epoch)
    callback.on_step_end(arguments, state, TrainerControl())
    following = TrainerControl()
    callback.on_epoch_end(arguments, state, following)
    assert not following.should_save  # it has been saved once


@pytest.mark.parametrize(
    ("due", "logged"),
    [([], False), (["save"], True), (["evaluate"], True), (["log"], True)],
    ids=["nothing", "save", "evaluate", "log"],
)
def test_a_loss_is_logged_at_the_end_of_an_epoch_that_is_saved_or_evaluated(due: list[str], logged: bool, tmp_path: Path) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    control = TrainerControl(**{f"should_{name}": True for name in due})
    LogAtCheckpoints().on_epoch_end(arguments, TrainerState(epoch=1.0), control)
    assert (control.should_log, control.should_save) == (logged, "save" in due)
