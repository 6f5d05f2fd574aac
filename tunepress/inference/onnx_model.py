"""Answers and logits of an ONNX model folder through onnxruntime-genai: the candidate onnx, and `make predict`."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime_genai as og
from tqdm import tqdm

from tunepress.core.cpu import available_cores
from tunepress.core.errors import InputError, one_line
from tunepress.core.paths import ADAPTER_FILE
from tunepress.inference import providers
from tunepress.inference.genai_config import GenaiConfig
from tunepress.inference.scoring import CHUNK, Logits, Requests
from tunepress.text.tokenizer import Tokens, max_answer_length

PROMPT_CHUNK = 256  # tokens of a prompt that are read at a time where it is scored: the graph has logits for each of them
# Such a graph takes the long factors of longrope where the tokens that it is given at once pass the switch, and earlier keys keep
# theirs (onnxruntime-genai 0.18, models/builders/base.py): it must be given a prompt whole, as torch is.
ROPE_SWITCH = b"rope_caches_subgraph/If"


def load(folder: Path, threads: int | None) -> og.Model:
    """Loads an ONNX model folder.

    Args:
        folder: onnxruntime-genai's layout.
        threads: of its products; None leaves the number to onnxruntime, which takes one for each core that it believes to be
            physical: on virtual machines too few.

    Raises:
        InputError: there is no such model, or this machine does not have the provider that it was built for.
    """
    provider = GenaiConfig.read(folder).provider
    providers.register(provider)
    config = og.Config(str(folder))
    if threads:
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
    try:
        return og.Model(config)
    except RuntimeError as error:
        raise InputError(f"{folder}: {providers.load_problem(provider, one_line(error))}") from error


def check_generates(folder: Path, prompt: str) -> None:
    """Loads a model and has it write one token behind a prompt.

    Raises:
        InputError: it cannot, as with some combinations of options that the builder accepts, or what it computes are no numbers.
    """
    try:
        model = OnnxModel(folder)
        model.answer(prompt, 1)
        ((_, _, logits),) = model.logits([(model.encode_prompt(prompt), [[0]])])
    except RuntimeError as error:
        raise InputError(f"these options give a model that does not run ({one_line(error)}); leave some out") from error
    if not np.isfinite(logits).all():
        raise InputError("these options give a model that computes no numbers (NaN or infinite logits); leave some out")


class ActiveAdapter:
    """The adapter beside an ONNX model, used for every answer; without one the model answers as it is."""

    NAME = "adapter"  # under which onnxruntime-genai registers it

    def __init__(self, model: og.Model, folder: Path) -> None:
        self._model = model
        self._adapters: og.Adapters | None = None
        if (folder / ADAPTER_FILE).exists():
            self._adapters = og.Adapters(model)
            self._adapters.load(str(folder / ADAPTER_FILE), self.NAME)

    def generator(self, parameters: og.GeneratorParams) -> og.Generator:
        generator = og.Generator(self._model, parameters)
        if self._adapters:
            generator.set_active_adapter(self._adapters, self.NAME)
        return generator


class OnnxModel:
    """A model that answers one prompt at a time, as it does where it is shipped."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        """Loads a model folder, with a thread for each core that this process may use unless `threads` says otherwise."""
        start = time.perf_counter()
        self.model = load(folder, threads or available_cores())
        self._adapter = ActiveAdapter(self.model, folder)
        self.load_seconds = time.perf_counter() - start
        self._read = PROMPT_CHUNK if ROPE_SWITCH not in GenaiConfig.read(folder).graph.read_bytes() else sys.maxsize
        self.context_length = int(GenaiConfig.read(folder).model["context_length"])
        self.tokenizer = og.Tokenizer(self.model)
        self.bare_tokenizer = og.Tokenizer(self.model)  # without the first token (BOS) that some models want
        self.bare_tokenizer.update_options(add_special_tokens="false")

    def answers(self, prompts: list[str], max_new_tokens: int) -> list[str]:
        """The model's greedy answers, in the order of `prompts`."""
        return [self.answer(prompt, max_new_tokens) for prompt in tqdm(prompts, desc="answers", unit="row")]

    def answer(self, prompt: str, max_new_tokens: int) -> str:
        """The model's greedy answer to one prompt, without the tokens that end it.

        Raises:
            InputError: the model's context has no room for an answer.
        """
        return self.decode(list(self.generate(self.encode_prompt(prompt), max_new_tokens)))

    def generate(self, prompt: Tokens, max_new_tokens: int, **sampling: bool | int | float) -> Iterator[int]:
        """New tokens behind a prompt, one by one; that which ends the answer, where one does, is the last.

        Args:
            prompt: tokens.
            max_new_tokens: the most there will be; fewer where the model's context ends.
            sampling: onnxruntime-genai's search options; without them each token is the likeliest.

        Raises:
            InputError: the context has no room for an answer.
        """
        length = max_answer_length(prompt, max_new_tokens, self.context_length)
        generator = self._generator(len(prompt) + length, **sampling)
        generator.append_tokens(prompt)
        while not generator.is_done():
            generator.generate_next_token()
            yield int(generator.get_next_tokens()[0])

    def decode(self, answer: Tokens) -> str:
        """The text of an answer's tokens, without those that end it: alone, the tokenizer makes a U+FFFD of one."""
        ends = set(self.tokenizer.eos_token_ids)
        return str(self.tokenizer.decode([token for token in answer if token not in ends]))

    def encode_prompt(self, text: str) -> Tokens:
        """Tokens of a prompt, the model's first token (BOS) included where its tokenizer adds one."""
        return list(self.tokenizer.encode(text))

    def encode_completion(self, text: str) -> Tokens:
        """Tokens of a completion and the end of the answer."""
        tokens, ends = list(self.bare_tokenizer.encode(text)), list(self.tokenizer.eos_token_ids)
        return tokens if tokens and tokens[-1] in ends else [*tokens, ends[0]]

    def logits(self, asked: Requests) -> Iterator[tuple[int, int, Logits]]:
        """As `Scorer.logits`: a prompt is computed once, and after each completion the model goes back to it."""
        for number, (prompt, completions) in enumerate(asked):
            generator = self._generator(len(prompt) + max(len(completion) for completion in completions))
            for start in range(0, len(prompt), self._read):
                generator.append_tokens(prompt[start : start + self._read])
            first = np.array(generator.get_output("logits")[0, -1:], dtype=np.float32)
            for place, completion in enumerate(completions):
                yield from ((number, place, chunk) for chunk in self._choosing(generator, first, completion))

    def _choosing(self, generator: og.Generator, first: Logits, completion: Tokens) -> Iterator[Logits]:
        """The logits that choose a completion, CHUNK tokens at a time; then the model goes back.

        Args:
            generator: that has read the prompt.
            first: logits that choose the first token, [1, vocabulary].
            completion: tokens.
        """
        before = generator.token_count()
        for start in range(0, len(completion), CHUNK):
            tokens = completion[:-1][max(start - 1, 0) : start + CHUNK - 1]  # each chooses the one after it
            chunk = [first] if start == 0 else []
            yield np.concatenate([*chunk, self._after(generator, tokens)] if tokens else chunk)
        if len(completion) > 1:
            generator.rewind_to(before)

    def _after(self, generator: og.Generator, tokens: Tokens) -> Logits:
        """The logits after each of some tokens, [tokens, vocabulary]."""
        before = generator.token_count()
        found = self._appended(generator, tokens)
        if len(found) < len(tokens):  # prune_lm_head leaves those of the last token alone
            generator.rewind_to(before)
            found = np.concatenate([self._appended(generator, [token]) for token in tokens])
        return found

    @staticmethod
    def _appended(generator: og.Generator, tokens: Tokens) -> Logits:
        """The logits behind each of the tokens that are appended."""
        generator.append_tokens(tokens)
        return np.array(generator.get_output("logits")[0], dtype=np.float32)

    def _generator(self, max_length: int, **sampling: bool | int | float) -> og.Generator:
        parameters = og.GeneratorParams(self.model)
        parameters.set_search_options(**{"do_sample": False, "max_length": max_length} | sampling)
        return self._adapter.generator(parameters)

    def prefill(self, prompts: list[Tokens], new_tokens: int) -> Tokens:
        """As `benchmark.speed.Runtime`. The minimum length is the maximum, so the end of an answer is never chosen."""
        length = len(prompts[0]) + new_tokens
        self._batch: og.Generator | None = None  # frees the cache of the previous batch
        self._batch = self._generator(length, min_length=length, batch_size=len(prompts))
        self._batch.append_tokens(np.array(prompts, dtype=np.int32))
        return self.step()

    def step(self) -> Tokens:
        """As `benchmark.speed.Runtime`."""
        assert self._batch
        self._batch.generate_next_token()
        return [int(token) for token in self._batch.get_next_tokens()]
