"""What happens at each step of a training: its progress is shown, and it gets the threads that are free."""

import time
from typing import Any

import torch
from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stages.train.estimate import Plan, duration
from tunepress.core.cpu import FreeCores

TIMED = range(2, 5)  # steps of a run that its speed is measured in; the first one also allocates and compiles


class Progress(ProgressCallback):
    """transformers' progress bar with the last losses and the speed, instead of a line for each log.

    After a few steps it prints how long the whole training takes, including validations, which the bar's own estimate leaves out.
    """

    def __init__(self, plan: Plan | None = None) -> None:
        super().__init__()
        self.plan = plan
        self.trained, self.seconds, self.tokens = 0, 0.0, 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Opens the bar, at the current step if the run is resumed."""
        super().on_train_begin(args, state, control, **kwargs)
        self.postfix: dict[str, str] = {}
        self.start, self.tokens_before = time.monotonic(), state.num_input_tokens_seen
        if self.training_bar is not None:
            self.training_bar.initial = self.training_bar.n = self.current_step = state.global_step
            self.training_bar.set_description("train")

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.step_start = time.monotonic(), state.num_input_tokens_seen

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called after each step, before its evaluation."""
        super().on_step_end(args, state, control, **kwargs)
        self.trained += 1
        if self.trained in TIMED:
            start, tokens = self.step_start
            self.seconds += time.monotonic() - start
            self.tokens += state.num_input_tokens_seen - tokens
        if self.trained == TIMED[-1] and self.training_bar is not None and self.plan and state.global_step < self.plan.steps:
            speed = self.tokens / self.seconds
            left = duration(self.plan.seconds_left(state.global_step, speed))
            self.training_bar.write(f"train: {left} left with all validations, at the {speed:,.0f} tokens/s of the first steps")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Shows the last log next to the bar."""
        if self.training_bar is None:
            return
        speed = (state.num_input_tokens_seen - self.tokens_before) / (time.monotonic() - self.start)
        losses = {name: f"{value:.4f}" for name, value in (logs or {}).items() if name in ("loss", "eval_loss")}
        self.postfix |= losses | {"tokens/s": f"{speed:,.0f}"}
        self.training_bar.set_postfix(self.postfix)


class FreeCoresCallback(TrainerCallback):
    """Uses at most as many threads for a step as there are free cores.

    With `DeterministicThreads` the number does not change the result.
    """

    def __init__(self) -> None:
        self.free_cores = FreeCores(torch.get_num_threads())

    def on_step_begin(self, *arguments: Any, **options: Any) -> None:
        torch.set_num_threads(self.free_cores())
