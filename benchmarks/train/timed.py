"""Runs a module as `python -m` does, and reports how transformers' Trainer trained in it: seconds, steps, tokens.

    python -m benchmarks.train.timed REPORT [--profile FIRST END] MODULE [ARGUMENTS...]

All contenders use transformers' Trainer, so this one clock measures them all, in any environment, and the stage needs no
switch for it. The clock is installed before the module is imported, and torch with it: what the stages set before torch is
imported must therefore be in the environment already.
"""

import argparse
import functools
import json
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile
from transformers import Trainer

OPERATORS = 15  # lines of a profile


class Clock:
    """What the training of this process took; a process is expected to train once."""

    def __init__(self, window: tuple[int, int] | None) -> None:
        self.seconds = 0.0  # in train(), without the evaluations in it
        self.steps = 0
        self.tokens = 0  # seen in training, without padding
        self.positions = 0  # seen in training, with padding
        self.dataset_tokens = 0
        self.operators: dict[str, list[dict[str, Any]]] = {}
        self._training = False
        self._window = window or (-1, -1)  # steps to profile: the first, and the one after the last
        self._profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True)

    def install(self) -> None:
        """Replaces methods of the Trainer class."""
        for name, timed in (("train", self._train), ("_evaluate", self._evaluate), ("training_step", self._step)):
            setattr(Trainer, name, wrapped(getattr(Trainer, name), timed))

    def report(self) -> dict[str, Any]:
        names = ("steps", "tokens", "positions", "dataset_tokens", "operators")
        return {"training_seconds": self.seconds, **{name: getattr(self, name) for name in names}}

    def _train(self, train: Callable[..., Any], trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
        self.dataset_tokens = sum(real_tokens(example) for example in trainer.train_dataset)
        self._training = True
        start = time.perf_counter()
        result = train(trainer, *args, **kwargs)
        self.seconds += time.perf_counter() - start
        self._training = False
        return result

    def _evaluate(self, evaluate: Callable[..., Any], trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = evaluate(trainer, *args, **kwargs)
        if self._training:
            self.seconds -= time.perf_counter() - start
        return result

    def _step(self, step: Callable[..., Any], trainer: Trainer, model: Any, inputs: dict[str, Any], *args: Any) -> Any:
        first, end = self._window
        if self.steps == first:
            self._profiler.start()
        if self.steps == end:  # from one call of this method to the next is a whole step, with the optimizer's part
            self._profiler.stop()
            self.operators = {
                "operators": busiest(self._profiler, end - first, by_shape=False),
                "operators by shape": busiest(self._profiler, end - first, by_shape=True),
            }
        self.steps += 1
        self.tokens += real_tokens(inputs)
        self.positions += size(inputs["input_ids"])
        return step(trainer, model, inputs, *args)


def wrapped(method: Callable[..., Any], timed: Callable[..., Any]) -> Callable[..., Any]:
    """A method that passes itself and its arguments to `timed`, with its signature, which the Trainer inspects."""

    @functools.wraps(method)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        return timed(method, *args, **kwargs)

    return replacement


def real_tokens(example: dict[str, Any] | list[dict[str, Any]]) -> int:
    """Tokens without padding of an example, of a sequence of examples or of a batch."""
    if isinstance(example, list):
        return sum(real_tokens(part) for part in example)
    mask = example.get("attention_mask")
    if mask is None:
        return size(example["input_ids"])
    return sum(mask) if isinstance(mask, list) else int(mask.sum())


def size(values: Any) -> int:
    return len(values) if isinstance(values, list) else int(values.numel())


def busiest(profiler: profile, steps: int, by_shape: bool) -> list[dict[str, Any]]:
    """The operators with the largest share of the time, their own time without that of the operators they call."""
    events = profiler.key_averages(group_by_input_shape=by_shape)
    total = sum(event.self_cpu_time_total for event in events)
    events = sorted(events, key=lambda event: event.self_cpu_time_total, reverse=True)[:OPERATORS]
    return [
        {
            "operator": event.key,
            "shapes": " @ ".join("x".join(map(str, shape)) for shape in event.input_shapes[:3] if shape) if by_shape else "",
            "share": event.self_cpu_time_total / total,
            "milliseconds": event.self_cpu_time_total / 1000 / steps,
            "calls": event.count / steps,
        }
        for event in events
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--profile", type=int, nargs=2, metavar=("FIRST", "END"))
    parser.add_argument("module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    clock = Clock(tuple(options.profile) if options.profile else None)
    clock.install()
    sys.argv = [options.module, *options.arguments]
    runpy.run_module(options.module, run_name="__main__", alter_sys=True)
    if not clock.steps:
        sys.exit(f"{options.module}: transformers' Trainer made no step")
    options.report.write_text(json.dumps(clock.report()), encoding="utf-8")


if __name__ == "__main__":
    main()
