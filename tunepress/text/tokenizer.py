"""Rows as tokens: prompt and completion are encoded apart, so a prompt has the same tokens in training and in use.

Imports no transformers: the int4 model is scored with `cut` too.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunepress.core.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = list[int]
Example = dict[str, Tokens]  # `input_ids` and `labels` of the same length

IGNORE_INDEX = -100  # transformers' label of a position without loss


def truncate(completion: Tokens, prompt: Tokens, source_max_len: int | None) -> Tokens:
    """The tokens of a completion that a row of `source_max_len` tokens holds after its prompt, at least one; None: all."""
    return completion if source_max_len is None else completion[: max(source_max_len - len(prompt), 1)]


def max_answer_length(prompt: Tokens, max_new_tokens: int, context_length: int | None) -> int:
    """The tokens that an answer may have: `max_new_tokens`, or the fewer that the model's context leaves after the prompt.

    Raises:
        InputError: it leaves none.
    """
    if context_length is None:
        return max_new_tokens
    if len(prompt) >= context_length:
        raise InputError(
            f"the prompt has {len(prompt)} tokens, which leaves no room for an answer in the model's context of "
            f"{context_length}; shorten the text"
        )
    return min(max_new_tokens, context_length - len(prompt))


def check_context(source_max_len: int, context_length: int, owner: str) -> None:
    """Raises InputError if a row of `source_max_len` tokens does not fit the context of `owner`, a model or a file."""
    if source_max_len > context_length:
        raise InputError(
            f"data.source_max_len: {source_max_len} tokens do not fit {owner}'s context of {context_length}; "
            f"set {context_length} or less"
        )


@dataclass(frozen=True)
class Encoder:
    """Encodes the texts of a row.

    Attributes:
        eos_token_ids: tokens that end an answer. The first is appended to a completion that ends in none of them.
    """

    tokenizer: "PreTrainedTokenizerBase"
    eos_token_ids: Tokens

    def prompt(self, text: str) -> Tokens:
        """Tokens of a prompt, the model's first token (BOS) included where its tokenizer adds one."""
        return list(self.tokenizer(text)["input_ids"])

    def completion(self, text: str) -> Tokens:
        """Tokens of a completion and the end of the answer."""
        tokens = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return tokens if tokens and tokens[-1] in self.eos_token_ids else [*tokens, self.eos_token_ids[0]]

    def row(self, row: dict[str, Any], source_max_len: int | None) -> tuple[Tokens, Tokens]:
        """A row's prompt, and its completion as far as `source_max_len` tokens hold the two; None: all of it."""
        prompt = self.prompt(row["prompt"])
        return prompt, truncate(self.completion(row["completion"]), prompt, source_max_len)

    def example(self, row: dict[str, Any], source_max_len: int, completion_only_loss: bool) -> Example:
        """One training example: `input_ids` and `labels` of the same length, at most `source_max_len`."""
        prompt, completion = self.row(row, source_max_len)
        learned = [IGNORE_INDEX] * len(prompt) + completion if completion_only_loss else prompt + completion
        return {"input_ids": (prompt + completion)[:source_max_len], "labels": learned[:source_max_len]}
