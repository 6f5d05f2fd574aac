"""Answers and logits of a Hugging Face model folder with torch: the candidates base and merged."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, DynamicCache

from tunepress.core.cpu import FreeCores, available_cores
from tunepress.inference.scoring import CHUNK, Logits, Requests
from tunepress.models.hf_model import check, context_length, load_config, load_encoder, load_model
from tunepress.models.layerwise_casting import fits_in_float32, in_sixteen_bits, load_in_float32
from tunepress.models.threads import DeterministicThreads
from tunepress.text.tokenizer import Tokens, max_answer_length

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from tunepress.inference.guided_logits import GuidedLogits

MAX_TOKENS = 8 * CHUNK  # of the completions of a batch, whose logits are in memory at the same time


class TorchModel:
    """A model with the same methods as `OnnxModel`, which processes prompts in batches.

    Args:
        folder: Hugging Face's layout.
        batch_size: number of prompts or completions that are computed at once.
        eos_token_ids: tokens that end an answer; if empty, those of the folder.
        deterministic: whether results do not depend on the number of threads, which takes a little more time.

    Raises:
        InputError: the folder is not a model folder.
    """

    def __init__(
        self, folder: Path, batch_size: int = 1, eos_token_ids: Sequence[int] = (), *, deterministic: bool = True
    ) -> None:
        check(folder)
        self.batch_size = batch_size
        self.encoder = load_encoder(folder, eos_token_ids)
        with torch.device("meta"):  # transformers imports an architecture at its first use, which load_seconds excludes
            AutoModelForCausalLM.from_config(load_config(folder))
        casts = in_sixteen_bits(folder) and not fits_in_float32(folder)
        start = time.perf_counter()
        # in 16 bits on a GPU, if the files are; on a CPU such arithmetic is emulated
        self.model = load_model(folder).cuda() if torch.cuda.is_available() else load_in_float32(folder, casts=casts)
        self.model.eval()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.load_seconds = time.perf_counter() - start
        if deterministic and not torch.cuda.is_available():
            DeterministicThreads(self.model)
        self.context_length = context_length(self.model.config)
        self._free_cores = FreeCores(min(torch.get_num_threads(), available_cores()))

    def answers(self, prompts: list[str], max_new_tokens: int, grammar: str | None = None) -> list[str]:
        """The model's greedy answers, in the order of `prompts`, within a grammar of guidance.py if there is one."""
        answers = [""] * len(prompts)
        with tqdm(total=len(prompts), desc="answers", unit="row") as progress:
            encoded = [self.encode_prompt(prompt) for prompt in prompts]
            for indices, tokens in self._batches(encoded, self.batch_size):
                for index, answer in zip(indices, self._generate(tokens, max_new_tokens, grammar), strict=True):
                    answers[index] = answer
                progress.update(len(indices))
        return answers

    def encode_prompt(self, text: str) -> Tokens:
        return self.encoder.encode_prompt(text)

    @property
    def bos_token_id(self) -> int:
        """As in `Model`."""
        bos = self.encoder.tokenizer.bos_token_id
        return self.encoder.eos_token_ids[0] if bos is None else int(bos)

    def encode_completion(self, text: str, after: str) -> Tokens:
        return self.encoder.encode_completion(text, after)

    @torch.inference_mode()
    def logits(self, requests: Requests) -> Iterator[tuple[int, int, Logits]]:
        """As in `Scorer`. Each prompt is computed once, and the completions of a batch of prompts together after that.

        If their logits would take too much memory, batches are smaller, and long completions are computed chunk by chunk.
        """
        choices = len(requests[0][1])
        prompts_per_batch = max(1, self.batch_size // choices)
        for indices, prompts in self._batches([prompt for prompt, _ in requests], prompts_per_batch):
            completions = [completion for index in indices for completion in requests[index][1]]
            longest = max(len(completion) for completion in completions)
            if longest > CHUNK:
                for index, prompt in zip(indices, prompts, strict=True):
                    yield from ((index, choice, chunk) for choice, chunk in self._chunked_logits(prompt, requests[index][1]))
                continue
            if longest * len(completions) <= MAX_TOKENS:
                batch = self._batch_logits(prompts, completions)
                yield from ((indices[row // choices], row % choices, logits) for row, logits in enumerate(batch))
                continue
            size = max(1, MAX_TOKENS // longest)
            for index, prompt in zip(indices, prompts, strict=True):
                for start in range(0, choices, size):
                    batch = self._batch_logits([prompt], requests[index][1][start : start + size])
                    yield from ((index, start + offset, logits) for offset, logits in enumerate(batch))

    def _batch_logits(self, prompts: list[Tokens], completions: list[Tokens]) -> list[Logits]:
        """The logits that predict completions, of which each prompt has the same number, in the order of the prompts."""
        device, choices = self.model.device, len(completions) // len(prompts)
        output = self.model(input_ids=torch.tensor(prompts, device=device), logits_to_keep=1, use_cache=True)
        first = output.logits.float().cpu().repeat_interleave(choices, dim=0)
        longest = max(len(completion) for completion in completions)
        if longest == 1:
            return [logits.numpy() for logits in first]
        output.past_key_values.batch_repeat_interleave(choices)
        # padded on the right, which the earlier tokens of a causal model do not attend to
        batch = [completion[:-1] + [0] * (longest - len(completion)) for completion in completions]
        rest = self.model(input_ids=torch.tensor(batch, device=device), past_key_values=output.past_key_values).logits
        padded = torch.cat([first, rest.float().cpu()], dim=1)
        return [logits[: len(completion)].numpy() for logits, completion in zip(padded, completions, strict=True)]

    def _chunked_logits(self, prompt: Tokens, completions: list[Tokens]) -> Iterator[tuple[int, Logits]]:
        """Yields the index of a completion of one prompt and the logits that predict its next tokens, at most CHUNK of them."""
        device = self.model.device
        output = self.model(input_ids=torch.tensor([prompt], device=device), logits_to_keep=1, use_cache=True)
        first, prompt_cache = output.logits[0].float().cpu().numpy(), output.past_key_values
        del output
        for choice, completion in enumerate(completions):
            cache = deepcopy(prompt_cache)
            for start in range(0, len(completion), CHUNK):
                tokens = completion[:-1][max(start - 1, 0) : start + CHUNK - 1]  # each predicts the next one
                chunk = [first] if start == 0 else []
                if tokens:
                    output = self.model(input_ids=torch.tensor([tokens], device=device), past_key_values=cache)
                    chunk.append(output.logits[0].float().cpu().numpy())
                yield choice, np.concatenate(chunk)

    def _batches(self, encoded: list[Tokens], size: int) -> Iterator[tuple[list[int], list[Tokens]]]:
        """Batches of prompts of equal length, with their indices.

        There is no padding, because with padding the rounding of a row would depend on the other rows of its batch.
        """
        by_length: dict[int, list[int]] = defaultdict(list)
        for index, tokens in enumerate(encoded):
            by_length[len(tokens)].append(index)
        for _, indices in sorted(by_length.items()):
            for start in range(0, len(indices), size):
                batch = indices[start : start + size]
                torch.set_num_threads(self._free_cores())
                yield batch, [encoded[index] for index in batch]

    @torch.inference_mode()
    def _generate(self, tokens: list[Tokens], max_new_tokens: int, grammar: str | None) -> list[str]:
        input_ids = torch.tensor(tokens, device=self.model.device)
        generated = self.model.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            max_new_tokens=max_answer_length(tokens[0], max_new_tokens, self.context_length),
            do_sample=False,
            eos_token_id=self.encoder.eos_token_ids,
            pad_token_id=self.encoder.eos_token_ids[0],
            logits_processor=[self._guided_logits(grammar, *input_ids.shape)] if grammar else None,
        )
        return self.encoder.tokenizer.batch_decode(generated[:, input_ids.shape[1] :], skip_special_tokens=True)

    def _guided_logits(self, grammar: str, rows: int, prompt_length: int) -> "GuidedLogits":
        from tunepress.inference.guided_logits import GuidedLogits

        return GuidedLogits(self._grammar_tokenizer, self.encoder.eos_token_ids, grammar, rows, prompt_length)

    @cached_property
    def _grammar_tokenizer(self) -> "LLTokenizer":
        from tunepress.inference.guided_logits import grammar_tokenizer

        return grammar_tokenizer(self.encoder.tokenizer, self.encoder.eos_token_ids)

    def prefill(self, prompts: list[Tokens], new_tokens: int) -> Tokens:
        """As `benchmark.speed.Runtime`. The cache grows with the answer, so `new_tokens` is not used."""
        self._cache = DynamicCache(config=self.model.config)
        self._last_tokens = torch.tensor(prompts, device=self.model.device)
        return self.step()

    @torch.inference_mode()
    def step(self) -> Tokens:
        """As `benchmark.speed.Runtime`. Copying the tokens from the GPU waits for them, so a clock can be read afterwards."""
        outputs = self.model(input_ids=self._last_tokens, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        logits = outputs.logits[:, -1]
        logits[:, self.encoder.eos_token_ids] = -torch.inf
        self._last_tokens = logits.argmax(dim=-1, keepdim=True)
        tokens: Tokens = self._last_tokens[:, 0].tolist()
        return tokens
