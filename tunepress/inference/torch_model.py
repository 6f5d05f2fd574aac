"""Answers and logits of a Hugging Face model folder through torch: the candidates base and merged."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from tunepress.core.cpu import FreeCores, available_cores
from tunepress.inference.scoring import CHUNK, Logits, Requests
from tunepress.models.hf_model import check, context_length, load_encoder, load_model
from tunepress.models.threads import DeterministicThreads
from tunepress.text.tokenizer import Tokens, max_answer_length

AT_ONCE = 8 * CHUNK  # tokens of a batch's completions whose logits may be in memory at a time


class TorchModel:
    """A model that answers prompts as `OnnxModel` does, in batches."""

    def __init__(
        self, folder: Path, batch_size: int = 1, eos_token_ids: Sequence[int] = (), *, deterministic: bool = True
    ) -> None:
        """Loads a model folder.

        Args:
            folder: in Hugging Face's layout.
            batch_size: number of prompts or completions that are computed at once.
            eos_token_ids: the tokens that end an answer; without them, those of the folder.
            deterministic: whether results do not depend on the number of threads. It takes a little time.

        Raises:
            InputError: there is no such model.
        """
        check(folder)
        self.batch_size = batch_size
        self.encoder = load_encoder(folder, eos_token_ids)
        with torch.device("meta"):  # transformers imports an architecture when it first makes one: not part of load_seconds
            AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
        start = time.perf_counter()
        self.model = load_model(folder).eval()
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.load_seconds = time.perf_counter() - start
        if deterministic:
            DeterministicThreads(self.model)
        self.context_length = context_length(self.model.config)
        self._free_cores = FreeCores(min(torch.get_num_threads(), available_cores()))

    def answers(self, prompts: list[str], max_new_tokens: int) -> list[str]:
        """The model's greedy answers, in the order of `prompts`."""
        answers = [""] * len(prompts)
        with tqdm(total=len(prompts), desc="answers", unit="row") as progress:
            encoded = [self.encode_prompt(prompt) for prompt in prompts]
            for numbers, tokens in self._batches(encoded, self.batch_size):
                for number, answer in zip(numbers, self._generate(tokens, max_new_tokens), strict=True):
                    answers[number] = answer
                progress.update(len(numbers))
        return answers

    def encode_prompt(self, text: str) -> Tokens:
        """Tokens of a prompt, the model's first token (BOS) included where its tokenizer adds one."""
        return self.encoder.encode_prompt(text)

    def encode_completion(self, text: str) -> Tokens:
        """Tokens of a completion and the end of the answer."""
        return self.encoder.encode_completion(text)

    @torch.inference_mode()
    def logits(self, asked: Requests) -> Iterator[tuple[int, int, Logits]]:
        """As `Scorer.logits`: a prompt is computed once, its completions after it in one batch with its neighbours'.

        Where their logits would take too much memory, fewer completions go together, and long ones chunk after chunk.
        """
        completions_each = len(asked[0][1])
        rows_each = max(1, self.batch_size // completions_each)
        for numbers, prompts in self._batches([prompt for prompt, _ in asked], rows_each):
            completions = [completion for number in numbers for completion in asked[number][1]]
            longest = max(len(completion) for completion in completions)
            if longest > CHUNK:
                for number, prompt in zip(numbers, prompts, strict=True):
                    yield from ((number, place, chunk) for place, chunk in self._in_chunks(prompt, asked[number][1]))
                continue
            if longest * len(completions) <= AT_ONCE:
                found = self._choosing(prompts, completions)
                yield from ((numbers[at // completions_each], at % completions_each, chunk) for at, chunk in enumerate(found))
                continue
            size = max(1, AT_ONCE // longest)
            for number, prompt in zip(numbers, prompts, strict=True):
                for start in range(0, completions_each, size):
                    part = self._choosing([prompt], asked[number][1][start : start + size])
                    yield from ((number, start + place, chunk) for place, chunk in enumerate(part))

    def _choosing(self, prompts: list[Tokens], completions: list[Tokens]) -> list[Logits]:
        """The logits by which completions are chosen, the first few after the first prompt and so on."""
        device, each = self.model.device, len(completions) // len(prompts)
        given = self.model(input_ids=torch.tensor(prompts, device=device), logits_to_keep=1, use_cache=True)
        first = given.logits.float().cpu().repeat_interleave(each, dim=0)
        longest = max(len(completion) for completion in completions)
        if longest == 1:
            return [one.numpy() for one in first]
        given.past_key_values.batch_repeat_interleave(each)
        # filled up behind, where a causal model does not look back from
        batch = [completion[:-1] + [0] * (longest - len(completion)) for completion in completions]
        rest = self.model(input_ids=torch.tensor(batch, device=device), past_key_values=given.past_key_values).logits
        whole = torch.cat([first, rest.float().cpu()], dim=1)
        return [one[: len(completion)].numpy() for one, completion in zip(whole, completions, strict=True)]

    def _in_chunks(self, prompt: Tokens, completions: list[Tokens]) -> Iterator[tuple[int, Logits]]:
        """The logits by which completions of one prompt are chosen, CHUNK tokens at a time, with the completion's number."""
        device = self.model.device
        read = self.model(input_ids=torch.tensor([prompt], device=device), logits_to_keep=1, use_cache=True)
        first, prompt_cache = read.logits[0].float().cpu().numpy(), read.past_key_values
        del read
        for place, completion in enumerate(completions):
            cache = deepcopy(prompt_cache)
            for start in range(0, len(completion), CHUNK):
                tokens = completion[:-1][max(start - 1, 0) : start + CHUNK - 1]  # each chooses the one after it
                chunk = [first] if start == 0 else []
                if tokens:
                    output = self.model(input_ids=torch.tensor([tokens], device=device), past_key_values=cache)
                    chunk.append(output.logits[0].float().cpu().numpy())
                yield place, np.concatenate(chunk)

    def _batches(self, encoded: list[Tokens], size: int) -> Iterator[tuple[list[int], list[Tokens]]]:
        """Prompts of one length together: no padding, whose rounding would depend on a row's neighbours."""
        by_length: dict[int, list[int]] = defaultdict(list)
        for number, tokens in enumerate(encoded):
            by_length[len(tokens)].append(number)
        for _, numbers in sorted(by_length.items()):
            for start in range(0, len(numbers), size):
                batch = numbers[start : start + size]
                torch.set_num_threads(self._free_cores())
                yield batch, [encoded[number] for number in batch]

    @torch.inference_mode()
    def _generate(self, tokens: list[Tokens], max_new_tokens: int) -> list[str]:
        given = torch.tensor(tokens, device=self.model.device)
        generated = self.model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=max_answer_length(tokens[0], max_new_tokens, self.context_length),
            do_sample=False,
            eos_token_id=self.encoder.eos_token_ids,
            pad_token_id=self.encoder.eos_token_ids[0],
        )
        return self.encoder.tokenizer.batch_decode(generated[:, given.shape[1] :], skip_special_tokens=True)

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
