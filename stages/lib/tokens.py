"""Rows as tokens: prompt and completion are encoded apart, so a prompt has the same tokens in training and in use."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

Example = dict[str, list[int]]  # `input_ids` and `labels` of the same length

IGNORED = -100  # transformers' label of a position without loss


@dataclass(frozen=True)
class Encoder:
    """Encodes the texts of a row.

    Attributes:
        eos_token_ids: tokens that end an answer. The first is appended to a completion that ends in none of them.
    """

    tokenizer: PreTrainedTokenizerBase
    eos_token_ids: list[int]

    def prompt(self, text: str) -> list[int]:
        """Tokens of a prompt, the model's first token (BOS) included where its tokenizer adds one."""
        return list(self.tokenizer(text)["input_ids"])

    def completion(self, text: str) -> list[int]:
        """Tokens of a completion and the end of the answer."""
        tokens = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return tokens if tokens and tokens[-1] in self.eos_token_ids else [*tokens, self.eos_token_ids[0]]

    def example(self, row: dict[str, Any], source_max_len: int, completion_only_loss: bool) -> Example:
        """One training example: `input_ids` and `labels` of the same length, at most `source_max_len`."""
        prompt, completion = self.prompt(row["prompt"]), self.completion(row["completion"])
        learned = [IGNORED] * len(prompt) + completion if completion_only_loss else prompt + completion
        return {"input_ids": (prompt + completion)[:source_max_len], "labels": learned[:source_max_len]}
