"""An ONNX model folder as a `Runtime` of speed.py, through onnxruntime-genai: no torch in this process."""

import time
from pathlib import Path

import numpy as np
import onnxruntime_genai as og

from tunepress.inference.genai_config import GenaiConfig
from tunepress.inference.onnx_model import ActiveAdapter, load


class OnnxRuntime:
    """Answers on the execution provider that the folder's genai_config.json names."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        """Loads the model.

        Args:
            folder: onnxruntime-genai's layout.
            threads: of its products; None leaves the number to onnxruntime.

        Raises:
            InputError: there is no such model.
        """
        start = time.perf_counter()
        self._model = load(folder, threads)
        self.context_length: int | None = int(GenaiConfig.read(folder).model["context_length"])
        self._adapter = ActiveAdapter(self._model, folder)
        self.load_seconds = time.perf_counter() - start
        self._generator: og.Generator | None = None

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return [int(token) for token in og.Tokenizer(self._model).encode(text)]

    def prefill(self, prompts: list[list[int]], new_tokens: int) -> list[int]:
        """As `Runtime` says. No sequence is shorter than the longest, so the end of an answer is never chosen."""
        length = len(prompts[0]) + new_tokens
        parameters = og.GeneratorParams(self._model)
        parameters.set_search_options(do_sample=False, batch_size=len(prompts), min_length=length, max_length=length)
        self._generator = None  # frees the cache of the answer before
        self._generator = self._adapter.generator(parameters)
        self._generator.append_tokens(np.array(prompts, dtype=np.int32))
        return self.step()

    def step(self) -> list[int]:
        """As `Runtime` says."""
        assert self._generator
        self._generator.generate_next_token()
        return [int(token) for token in self._generator.get_next_tokens()]
