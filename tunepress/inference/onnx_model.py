"""Answers and logits of an ONNX model folder with onnxruntime-genai: the candidate onnx, and `make predict`."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import takewhile
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
from tunepress.text.tokenizer import Tokens, continuation, max_answer_length

GRAMMAR = "lark_grammar"  # the kind of guidance
PROMPT_CHUNK = 256  # tokens of a prompt that are processed at a time when scoring: the graph computes logits for each of them
# A graph with this node uses the long factors of longrope if the tokens of one call reach beyond the switch, and earlier keys
# keep their factors (onnxruntime-genai 0.18, models/builders/base.py). It must get the whole prompt in one call, as torch does.
ROPE_SWITCH = b"rope_caches_subgraph/If"

Sampling = Mapping[str, bool | int | float]  # onnxruntime-genai's search options


def load(folder: Path, threads: int | None) -> og.Model:
    """Loads an ONNX model folder.

    Args:
        folder: onnxruntime-genai's layout.
        threads: for its operators; None leaves the number to onnxruntime, which uses one for each core that it takes for a
            physical one, too few on virtual machines.

    Raises:
        InputError: the model does not exist, or the provider for which it was built is not available on this machine.
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


class ActiveAdapter:
    """The adapter with which an ONNX model answers: the file beside it, or another one. Without any it answers as it is."""

    MOST = 16  # that are kept in memory

    def __init__(self, model: og.Model, folder: Path) -> None:
        self._model = model
        self._own = folder / ADAPTER_FILE if (folder / ADAPTER_FILE).exists() else None
        self._adapters = og.Adapters(model)
        self._loaded: dict[str, None] = {}  # names, the most recently used last
        self.use(None)

    def use(self, file: Path | None, version: int = 0) -> None:
        """As `OnnxModel.use_adapter`."""
        file = file or self._own
        self._active = f"{file} {version}" if file else None
        if not file or not self._active:
            return
        if self._active not in self._loaded:
            try:
                self._adapters.load(str(file), self._active)
            except RuntimeError as error:
                raise InputError(f"{file}: {one_line(error)}") from error
        self._loaded.pop(self._active, None)
        self._loaded[self._active] = None
        if len(self._loaded) > self.MOST:
            oldest = next(iter(self._loaded))
            self._adapters.unload(oldest)
            del self._loaded[oldest]

    def generator(self, parameters: og.GeneratorParams) -> og.Generator:
        generator = og.Generator(self._model, parameters)
        if self._active:
            generator.set_active_adapter(self._adapters, self._active)
        return generator


class OnnxModel:
    """A model that processes one prompt at a time, as it does in production.

    Args:
        folder: onnxruntime-genai's layout.
        threads: for its operators; by default one for each core that this process may use.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        start = time.perf_counter()
        self.model = load(folder, threads or available_cores())
        self._adapter = ActiveAdapter(self.model, folder)
        self.load_seconds = time.perf_counter() - start
        self._prompt_chunk = PROMPT_CHUNK if ROPE_SWITCH not in GenaiConfig.read(folder).graph.read_bytes() else sys.maxsize
        self.context_length = int(GenaiConfig.read(folder).model["context_length"])
        self.tokenizer = og.Tokenizer(self.model)
        self.tokenizer.update_options(add_special_tokens="true")  # onnxruntime-genai 0.18 adds none by default, not even BOS
        self.bare_tokenizer = og.Tokenizer(self.model)
        self.bare_tokenizer.update_options(add_special_tokens="false")

    def use_adapter(self, file: Path | None, version: int = 0) -> None:
        """Answers with another adapter from now on.

        Args:
            file: of the adapter; None: that of the folder, or none.
            version: another one reads the file again.

        Raises:
            InputError: it is not the file of an adapter.
        """
        self._adapter.use(file, version)

    def check_adapter(self, file: Path, version: int) -> None:
        """Reads an adapter, and a token with it.

        Raises:
            InputError: it is not the file of an adapter, or of one that fits the model.
        """
        self.use_adapter(file, version)
        try:
            self._generator(2).append_tokens([0])
        except RuntimeError as error:
            raise InputError(f"{file}: does not fit the model ({one_line(error)})") from error

    def answers(self, prompts: list[str], max_new_tokens: int, grammar: str | None = None) -> list[str]:
        """The model's greedy answers, in the order of `prompts`, within a grammar of guidance.py if there is one."""
        return [self.answer(prompt, max_new_tokens, grammar) for prompt in tqdm(prompts, desc="answers", unit="row")]

    def answer(self, prompt: str, max_new_tokens: int, grammar: str | None = None) -> str:
        """The model's greedy answer to one prompt, without its EOS token.

        Raises:
            InputError: the model's context has no room for an answer.
        """
        return self.decode(list(self.generate(self.encode_prompt(prompt), max_new_tokens, grammar)))

    def generate(
        self, prompt: Tokens, max_new_tokens: int, grammar: str | None = None, **sampling: bool | int | float
    ) -> Iterator[int]:
        """Generates tokens after a prompt, one by one, including the EOS token if the answer ends with one.

        Args:
            prompt: tokens.
            max_new_tokens: maximum number of tokens; there are fewer if the model's context is too short for them.
            grammar: that the answer cannot leave.
            sampling: search options of onnxruntime-genai; by default the decoding is greedy.

        Raises:
            InputError: the context has no room for an answer.
        """
        for generator in self._steps(prompt, max_new_tokens, grammar, sampling):
            generator.generate_next_token()
            yield int(generator.get_next_tokens()[0])

    def generate_with_logits(
        self, prompt: Tokens, max_new_tokens: int, grammar: str | None = None, **sampling: bool | int | float
    ) -> Iterator[tuple[int, Logits]]:
        """As `generate`, with the model's logits for each token, [vocabulary], before guidance and sampling change them."""
        for generator in self._steps(prompt, max_new_tokens, grammar, sampling):
            logits = np.array(generator.get_logits(), dtype=np.float32).reshape(-1)
            generator.generate_next_token()
            yield int(generator.get_next_tokens()[0]), logits

    def _steps(self, prompt: Tokens, max_new_tokens: int, grammar: str | None, sampling: Sampling) -> Iterator[og.Generator]:
        """Yields a generator that has read a prompt, until its answer is complete."""
        length = max_answer_length(prompt, max_new_tokens, self.context_length)
        generator = self._generator(len(prompt) + length, grammar, **sampling)
        generator.append_tokens(prompt)
        while not generator.is_done():
            yield generator

    def decode(self, answer: Tokens) -> str:
        """The text of an answer without its EOS tokens, of which one alone would become U+FFFD."""
        ends = set(self.tokenizer.eos_token_ids)
        return str(self.tokenizer.decode([token for token in answer if token not in ends]))

    def encode_prompt(self, text: str) -> Tokens:
        return list(self.tokenizer.encode(text))

    @property
    def bos_token_id(self) -> int:
        """As in `Model`."""
        return int(self.tokenizer.bos_token_id)

    def encode_completion(self, text: str, after: str) -> Tokens:
        tokens = continuation(lambda part: [int(token) for token in self.bare_tokenizer.encode(part)], text, after)
        ends = list(self.tokenizer.eos_token_ids)
        return tokens if tokens and tokens[-1] in ends else [*tokens, ends[0]]

    def logits(self, requests: Requests) -> Iterator[tuple[int, int, Logits]]:
        """As in `Scorer`. Each prompt is computed once, and the generator is rewound to its end after each completion."""
        for index, (prompt, completions) in enumerate(requests):
            generator = self._generator(self._longest(prompt, completions))
            yield from ((index, *chunk) for chunk in self._choices_logits(generator, prompt, completions))

    def shared_logits(self, requests: Requests) -> Iterator[tuple[int, int, Logits]]:
        """As `logits`, but the tokens with which all prompts begin are computed only once, which may round differently."""
        shared = _common_prefix([prompt for prompt, _ in requests])
        if not shared or self._prompt_chunk == sys.maxsize:
            yield from self.logits(requests)
            return
        generator = self._generator(max(self._longest(*request) for request in requests))
        self._read(generator, shared)
        for index, (prompt, completions) in enumerate(requests):
            rest = prompt[len(shared) :]
            yield from ((index, *chunk) for chunk in self._choices_logits(generator, rest, completions))
            generator.rewind_to(len(shared))

    def _longest(self, prompt: Tokens, completions: list[Tokens]) -> int:
        """The number of tokens to make room for. The last one of a completion is predicted and not read."""
        longest = len(prompt) + max(len(completion) for completion in completions)
        return min(longest, max(self.context_length, len(prompt)))

    def _choices_logits(self, generator: og.Generator, prompt: Tokens, completions: list[Tokens]) -> Iterator[tuple[int, Logits]]:
        """Reads a prompt, or the rest of one; yields the index of a completion and logits that predict it."""
        self._read(generator, prompt)
        first = np.array(generator.get_output("logits")[0, -1:], dtype=np.float32)
        for choice, completion in enumerate(completions):
            yield from ((choice, chunk) for chunk in self._completion_logits(generator, first, completion))

    def _read(self, generator: og.Generator, prompt: Tokens) -> None:
        for start in range(0, len(prompt), self._prompt_chunk):
            generator.append_tokens(prompt[start : start + self._prompt_chunk])

    def _completion_logits(self, generator: og.Generator, first: Logits, completion: Tokens) -> Iterator[Logits]:
        """Yields the logits that predict a completion, of at most CHUNK tokens at a time, and rewinds the generator.

        Args:
            generator: has processed the prompt.
            first: the logits that predict the first token, [1, vocabulary].
            completion: tokens.
        """
        prompt_length = generator.token_count()
        for start in range(0, len(completion), CHUNK):
            tokens = completion[:-1][max(start - 1, 0) : start + CHUNK - 1]  # each predicts the next one
            chunk = [first] if start == 0 else []
            yield np.concatenate([*chunk, self._next_logits(generator, tokens)] if tokens else chunk)
        if len(completion) > 1:
            generator.rewind_to(prompt_length)

    def _next_logits(self, generator: og.Generator, tokens: Tokens) -> Logits:
        """Appends tokens and returns the logits after each of them, [tokens, vocabulary]."""
        length = generator.token_count()
        logits = self._append(generator, tokens)
        if len(logits) < len(tokens):  # with prune_lm_head the graph returns only those of the last token
            generator.rewind_to(length)
            logits = np.concatenate([self._append(generator, [token]) for token in tokens])
        return logits

    @staticmethod
    def _append(generator: og.Generator, tokens: Tokens) -> Logits:
        """Appends tokens and returns the logits of this call."""
        generator.append_tokens(tokens)
        return np.array(generator.get_output("logits")[0], dtype=np.float32)

    def _generator(self, max_length: int, grammar: str | None = None, **sampling: bool | int | float) -> og.Generator:
        parameters = og.GeneratorParams(self.model)
        parameters.set_search_options(**{"do_sample": False, "max_length": max_length} | sampling)
        if not grammar:
            return self._adapter.generator(parameters)
        parameters.set_guidance(GRAMMAR, grammar)
        try:
            return self._adapter.generator(parameters)
        except RuntimeError as error:
            raise InputError(f"evaluate.guidance: {one_line(error)}") from error

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


def _common_prefix(prompts: list[Tokens]) -> Tokens:
    """The tokens with which all of several prompts begin; none for a single prompt. A token of each is left."""
    shortest = min(map(len, prompts)) - 1
    same = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*(prompt[:shortest] for prompt in prompts), strict=True))
    return [tokens[0] for tokens in same] if len(prompts) > 1 else []
