"""What a user sees while a model is trained: steps, time left, loss, tokens a second."""

import time
from typing import Any

from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments


class Progress(ProgressCallback):
    """transformers' progress bar with the last losses and the speed behind it, in place of a line for each log."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Opens the bar, where a resumed run goes on."""
        super().on_train_begin(args, state, control, **kwargs)
        self.figures: dict[str, str] = {}
        self.start, self.tokens_before = time.monotonic(), state.num_input_tokens_seen
        if self.training_bar is not None:
            self.training_bar.initial = self.training_bar.n = self.current_step = state.global_step
            self.training_bar.set_description("train")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Shows a log behind the bar."""
        if self.training_bar is None:
            return
        speed = (state.num_input_tokens_seen - self.tokens_before) / (time.monotonic() - self.start)
        losses = {name: f"{value:.4f}" for name, value in (logs or {}).items() if name in ("loss", "eval_loss")}
        self.figures |= losses | {"tokens/s": f"{speed:,.0f}"}
        self.training_bar.set_postfix(self.figures)
