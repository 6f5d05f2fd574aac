"""Greedy answers of a Hugging Face model folder through torch: the candidates base and merged."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from stages.lib.checkpoint import load_encoder, load_model


class TorchModel:
    """A model that answers prompts as `OnnxModel` does, in batches."""

    def __init__(self, folder: Path, batch_size: int) -> None:
        self.batch_size = batch_size
        self.encoder = load_encoder(folder)
        self.model = load_model(folder).eval()
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")

    def answers(self, prompts: list[str], max_new_tokens: int) -> list[str]:
        """The model's greedy answers, in the order of `prompts`."""
        answers = [""] * len(prompts)
        with tqdm(total=len(prompts), desc="answers", unit="row") as progress:
            for numbers, tokens in self._batches([self.encoder.prompt(prompt) for prompt in prompts]):
                for number, answer in zip(numbers, self._generate(tokens, max_new_tokens), strict=True):
                    answers[number] = answer
                progress.update(len(numbers))
        return answers

    def _batches(self, encoded: list[list[int]]) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Prompts of one length together: no padding, whose rounding would depend on a row's neighbours."""
        by_length: dict[int, list[int]] = defaultdict(list)
        for number, tokens in enumerate(encoded):
            by_length[len(tokens)].append(number)
        for _, numbers in sorted(by_length.items()):
            for start in range(0, len(numbers), self.batch_size):
                batch = numbers[start : start + self.batch_size]
                yield batch, [encoded[number] for number in batch]

    @torch.inference_mode()
    def _generate(self, tokens: list[list[int]], max_new_tokens: int) -> list[str]:
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
