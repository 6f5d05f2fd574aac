"""Answers and logits of a Hugging Face model folder through torch: the candidates base and merged."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from stages.lib.checkpoint import load_encoder, load_model
from stages.lib.likelihood import Logits, Tokens


class TorchModel:
    """A model that answers prompts as `OnnxModel` does, in batches."""

    def __init__(self, folder: Path, batch_size: int = 1) -> None:
        self.batch_size = batch_size
        self.encoder = load_encoder(folder)
        self.model = load_model(folder).eval()
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")

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
        return self.encoder.prompt(text)

    def encode_completion(self, text: str) -> Tokens:
        """Tokens of a completion and the end of the answer."""
        return self.encoder.completion(text)

    @torch.inference_mode()
    def logits(self, asked: Sequence[tuple[Tokens, list[Tokens]]]) -> Iterator[tuple[int, list[Logits]]]:
        """As `Scorer.logits`: a prompt is computed once, its completions behind it in one batch with its neighbours'."""
        completions_each = len(asked[0][1])
        rows_each = max(1, self.batch_size // completions_each)
        for numbers, prompts in self._batches([prompt for prompt, _ in asked], rows_each):
            completions = [completion for number in numbers for completion in asked[number][1]]
            found = self._choosing(prompts, completions)
            for place, number in enumerate(numbers):
                yield number, found[place * completions_each : (place + 1) * completions_each]

    def _choosing(self, prompts: list[Tokens], completions: list[Tokens]) -> list[Logits]:
        """The logits by which completions are chosen, the first few behind the first prompt and so on."""
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

    def _batches(self, encoded: list[Tokens], size: int) -> Iterator[tuple[list[int], list[Tokens]]]:
        """Prompts of one length together: no padding, whose rounding would depend on a row's neighbours."""
        by_length: dict[int, list[int]] = defaultdict(list)
        for number, tokens in enumerate(encoded):
            by_length[len(tokens)].append(number)
        for _, numbers in sorted(by_length.items()):
            for start in range(0, len(numbers), size):
                batch = numbers[start : start + size]
                yield batch, [encoded[number] for number in batch]

    @torch.inference_mode()
    def _generate(self, tokens: list[Tokens], max_new_tokens: int) -> list[str]:
        given = torch.tensor(tokens, device=self.model.device)
        generated = self.model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self.encoder.eos_token_ids,
            pad_token_id=self.encoder.eos_token_ids[0],
        )
        return self.encoder.tokenizer.batch_decode(generated[:, given.shape[1] :], skip_special_tokens=True)
