"""Measures how the server could answer several prompts at once on this machine: is any way faster than one after the other?

    python -m benchmarks.batching       # after `make repro`; two minutes on two cores

models/onnx answers the held-out prompts:

- one at a time: as `make serve` does, with all cores.
- batches: padded to one length, in the order in which they come.
- Engine: onnxruntime-genai's continuous batching, which takes four prompts at once without paged attention, and builder 0.18 has
  paged attention for CUDA and WebGPU only.
- processes: two models, each with half of the cores, as `make serve ARGS="--processes 2"` does.

Every way must give the same answers.
"""

import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, main, table
from benchmarks.processes import Figures, call, workspace
from tunepress.core.cpu import available_cores
from tunepress.core.files import read_jsonl
from tunepress.core.paths import ONNX, PREPARED
from tunepress.text.prompt import Prompt
from tunepress.text.segments import evaluated
from tunepress.text.tokenizer import Tokens

TEST_ROWS = PREPARED / "test.jsonl"
BATCHES = (4, 16)
ENGINE_WAITING = 16  # prompts


@dataclass(frozen=True)
class Answered:
    """What a way of answering took and gave."""

    seconds: float
    answers: list[str]


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Answers the prompts in each way."""
    workspace(scratch, ONNX, TEST_ROWS)
    with console.status("answering"):
        measured, _ = call("benchmarks.batching:compare", scratch, kernels=True)
    return measured


def compare() -> dict[str, Any]:
    """The seconds of each way, and how many of its answers are others than those of one at a time."""
    texts = [turn.prompt for turn in evaluated(read_jsonl(TEST_ROWS), all_turns=False)]
    cores = available_cores()
    ways: dict[str, Callable[[], Answered]] = {
        "one at a time": lambda: one_at_a_time(texts, cores),
        **{f"batches of {size}": partial(batches, texts, cores, size) for size in BATCHES},
        "Engine": lambda: engine(texts, cores),
        "two processes": lambda: processes(texts, max(1, cores // 2)),
    }
    answered = {name: way() for name, way in ways.items()}
    reference = answered["one at a time"].answers
    return {
        "prompts": len(texts),
        "ways": {
            name: {"seconds": way.seconds, "other_answers": sum(map(str.__ne__, reference, way.answers))}
            for name, way in answered.items()
        },
    }


def one_at_a_time(texts: list[str], threads: int) -> Answered:
    from tunepress.inference.onnx_model import OnnxModel

    model, length = OnnxModel(ONNX, threads), Prompt.load(ONNX).max_new_tokens
    start = time.perf_counter()
    answers = [model.answer(text, length) for text in texts]
    return Answered(time.perf_counter() - start, answers)


def batches(texts: list[str], threads: int, size: int) -> Answered:
    from tunepress.inference.onnx_model import OnnxModel

    model, length = OnnxModel(ONNX, threads), Prompt.load(ONNX).max_new_tokens
    start = time.perf_counter()
    prompts = list(map(model.encode_prompt, texts))
    answers = [
        answer for first in range(0, len(prompts), size) for answer in answer_batch(model, prompts[first : first + size], length)
    ]
    return Answered(time.perf_counter() - start, answers)


def answer_batch(model: Any, prompts: list[Tokens], length: int) -> list[str]:
    """The answers to prompts that are padded at their ends."""
    import onnxruntime_genai as og

    longest = max(map(len, prompts))
    padding = model.tokenizer.pad_token_id
    parameters = og.GeneratorParams(model.model)
    parameters.set_search_options(do_sample=False, max_length=longest + length, batch_size=len(prompts))
    generator = og.Generator(model.model, parameters)
    generator.append_tokens(np.array([[*prompt, *[padding] * (longest - len(prompt))] for prompt in prompts], dtype=np.int32))
    ends = set(model.tokenizer.eos_token_ids)
    answers: list[Tokens] = [[] for _ in prompts]
    while not generator.is_done() and not all(answer and answer[-1] in ends for answer in answers):
        generator.generate_next_token()
        for answer, token in zip(answers, generator.get_next_tokens(), strict=True):
            if not answer or answer[-1] not in ends:
                answer.append(int(token))
    return list(map(model.decode, answers))


def engine(texts: list[str], threads: int) -> Answered:
    import onnxruntime_genai as og

    from tunepress.inference.onnx_model import OnnxModel

    model, length = OnnxModel(ONNX, threads), Prompt.load(ONNX).max_new_tokens
    start = time.perf_counter()
    running = og.Engine(model.model)
    buffer = running.create_event_buffer(4 * ENGINE_WAITING)
    answers: list[Tokens] = [[] for _ in texts]
    live: list[tuple[Any, int]] = []
    waiting = iter(enumerate(texts))
    while True:
        while len(live) < ENGINE_WAITING and (following := next(waiting, None)):
            request = running.create_request()
            options = og.TurnOptions(request)
            options.set_do_sample(False)
            options.set_max_generated_tokens(length)
            request.begin_turn(np.array(model.encode_prompt(following[1]), dtype=np.int32), options)
            live.append((request, following[0]))
        if not live:
            return Answered(time.perf_counter() - start, list(map(model.decode, answers)))
        for event in running.run(buffer):
            place = next(place for place in live if place[0] == event.request)
            flags = event.flags.value
            if flags & og.EngineEventFlags.TOKEN.value:
                answers[place[1]].append(int(event.token))
            if flags & (og.EngineEventFlags.TURN_FINISHED.value | og.EngineEventFlags.FAILED.value):
                place[0].close()
                live.remove(place)


def processes(texts: list[str], threads: int) -> Answered:
    """Half of the prompts in each of two processes; the seconds of the slower, without loading the model."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        first, second = pool.map(one_at_a_time, (texts[::2], texts[1::2]), (threads, threads))
    answers = [""] * len(texts)
    answers[::2], answers[1::2] = first.answers, second.answers
    return Answered(max(first.seconds, second.seconds), answers)


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    """A line for each way."""
    alone = measured["ways"]["one at a time"]["seconds"]
    rows = [
        (name, f"{measured['prompts'] / way['seconds']:.1f}", f"{alone / way['seconds']:.2f}", str(way["other_answers"]))
        for name, way in measured["ways"].items()
    ]
    yield table(f"{measured['prompts']} prompts", ("", "answers a second", "times one at a time", "other answers"), rows)


BENCHMARK = Benchmark("batching", __doc__, ("onnxruntime", "onnxruntime-genai"), measure, report)

if __name__ == "__main__":
    main(BENCHMARK)
