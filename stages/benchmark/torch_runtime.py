"""A Hugging Face model folder as a `Runtime` of speed.py, through transformers and torch, on a GPU where there is one."""

import time
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from tunepress.models.hf_model import check, context_length, load_model, load_tokenizer


class TorchRuntime:
    """Answers with a key-value cache and logits for the last position only, in the precision of the model's files."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        """Loads the model.

        Args:
            folder: Hugging Face's layout.
            threads: of its products on a CPU; None leaves the number to torch.

        Raises:
            InputError: there is no such model.
        """
        check(folder)
        if threads:
            torch.set_num_threads(threads)
        self._folder = folder
        with torch.device("meta"):  # transformers imports an architecture when it first makes one
            AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        start = time.perf_counter()
        self._model = load_model(folder).eval()
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.load_seconds = time.perf_counter() - start
        self.context_length = context_length(self._model.config)
        ends = self._model.generation_config.eos_token_id
        self._ends = ends if isinstance(ends, list) else [] if ends is None else [ends]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(load_tokenizer(self._folder)(text)["input_ids"])

    def prefill(self, prompts: list[list[int]], new_tokens: int) -> list[int]:
        """As `Runtime` says. The cache grows with the answer, so `new_tokens` is of no use here."""
        self._cache = DynamicCache(config=self._model.config)
        self._tokens = torch.tensor(prompts, device=self._model.device)
        return self.step()

    @torch.inference_mode()
    def step(self) -> list[int]:
        """As `Runtime` says. The tokens come back from the GPU, so a clock read after it has waited for them."""
        found = self._model(input_ids=self._tokens, past_key_values=self._cache, use_cache=True, logits_to_keep=1).logits[:, -1]
        found[:, self._ends] = -torch.inf
        self._tokens = found.argmax(dim=-1, keepdim=True)
        chosen: list[int] = self._tokens[:, 0].tolist()
        return chosen
