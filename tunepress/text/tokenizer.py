"""Rows as tokens. Prompt and completion are encoded separately, so a prompt has the same tokens in training and in inference.

This module does not import transformers, because scoring the int4 model uses `truncate` too.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunepress.core.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = list[int]
Example = dict[str, Tokens]  # `input_ids` and `labels` of the same length

IGNORE_INDEX = -100  # the label that transformers excludes from the loss


def truncate(completion: Tokens, prompt: Tokens, source_max_len: int | None) -> Tokens:
    """The tokens of a completion that fit a row of `source_max_len` tokens after its prompt, at least one; None: all of them."""
    return completion if source_max_len is None else completion[: max(source_max_len - len(prompt), 1)]


def max_answer_length(prompt: Tokens, max_new_tokens: int, context_length: int | None) -> int:
    """The maximum number of tokens of an answer: `max_new_tokens`, or fewer if the model's context is too short for them.

    Raises:
        InputError: the prompt fills the context.
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
        eos_token_ids: tokens that end an answer. The first is appended to a completion that does not end with one of them.
    """

    tokenizer: "PreTrainedTokenizerBase"
    eos_token_ids: Tokens

    def encode_prompt(self, text: str) -> Tokens:
        """Tokens of a prompt, including the BOS token if the tokenizer adds one."""
        return list(self.tokenizer(text)["input_ids"])

    def encode_completion(self, text: str) -> Tokens:
        """Tokens of a completion, including an EOS token at the end."""
        tokens = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return tokens if tokens and tokens[-1] in self.eos_token_ids else [*tokens, self.eos_token_ids[0]]

    def encode_row(self, row: dict[str, Any], source_max_len: int | None) -> tuple[Tokens, Tokens]:
        """Tokens of a row's prompt, and of its completion truncated to a total of `source_max_len`; None: not truncated."""
        prompt = self.encode_prompt(row["prompt"])
        return prompt, truncate(self.encode_completion(row["completion"]), prompt, source_max_len)

    def encode_example(self, row: dict[str, Any], source_max_len: int, completion_only_loss: bool) -> Example:
        """One training example: `input_ids` and `labels` of the same length, at most `source_max_len`."""
        prompt, completion = self.encode_row(row, source_max_len)
        labels = [IGNORE_INDEX] * len(prompt) + completion if completion_only_loss else prompt + completion
        return {"input_ids": (prompt + completion)[:source_max_len], "labels": labels[:source_max_len]}
