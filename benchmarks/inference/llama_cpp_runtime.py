"""A GGUF file as a `Runtime` of stages/benchmark/speed.py, through the C interface of llama.cpp with llama.cpp's own defaults.

llama-cpp-python's class `Llama` handles one sequence at a time; the interface below it takes a batch of them.
"""

import time
from pathlib import Path

import llama_cpp  # type: ignore[import-not-found]
import numpy as np

from tunepress.core.errors import InputError

CELLS = 256  # llama.cpp rounds the length of a sequence's cache up to a multiple of it


class LlamaCppRuntime:
    """Answers on the CPU. A context for one sequence is part of loading; another number of them opens another context."""

    def __init__(self, file: Path, threads: int, tokens: int) -> None:
        """Loads the model.

        Args:
            file: GGUF.
            threads: of its products.
            tokens: of the longest prompt with its answer.

        Raises:
            InputError: it cannot be loaded.
        """
        self._threads, self._length = threads, -(-tokens // CELLS) * CELLS
        start = time.perf_counter()
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise InputError(f"{file}: llama.cpp cannot load it")
        self._open(1)
        self.load_seconds = time.perf_counter() - start
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._vocabulary_size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._end = llama_cpp.llama_vocab_eos(vocabulary)

    def prefill(self, prompts: list[list[int]], new_tokens: int) -> list[int]:
        """As in `Runtime`. The cache has room for the `tokens` of the constructor, so `new_tokens` is not used."""
        if len(prompts) != self._sequences:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._context)
            self._open(len(prompts))
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        self._position = 0
        return self._decode(prompts)

    def step(self) -> list[int]:
        """As in `Runtime`."""
        return self._decode([[token] for token in self._tokens])

    def _open(self, sequences: int) -> None:
        """Makes a context and a batch for a number of sequences."""
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = sequences * self._length
        parameters.n_seq_max = parameters.n_outputs_max = sequences  # one output each: the last token's logits
        parameters.n_threads = parameters.n_threads_batch = self._threads
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise InputError(f"llama.cpp: no context for {sequences} sequences of {self._length} tokens")
        self._batch = llama_cpp.llama_batch_init(sequences * self._length, 0, 1)
        self._sequences = sequences

    def _decode(self, continuations: list[list[int]]) -> list[int]:
        """Continues each sequence with tokens, [sequences][tokens], and chooses the next."""
        batch, index, last = self._batch, 0, []
        for sequence, tokens in enumerate(continuations):
            for offset, token in enumerate(tokens):
                batch.token[index] = token
                batch.pos[index] = self._position + offset
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = sequence
                batch.logits[index] = offset == len(tokens) - 1
                index += 1
            last.append(index - 1)
        batch.n_tokens = index
        if code := llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode: code {code}")
        self._position += len(continuations[0])
        self._tokens = [self._top_token(index) for index in last]
        return self._tokens

    def _top_token(self, index: int) -> int:
        """The most likely token after the one at `index` of the batch, but never the end of an answer."""
        pointer = llama_cpp.llama_get_logits_ith(self._context, index)
        logits = np.ctypeslib.as_array(pointer, shape=(self._vocabulary_size,))
        logits[self._end] = -np.inf
        return int(logits.argmax())
