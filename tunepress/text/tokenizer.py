"""Rows as tokens. Segments are encoded one by one, so a prompt has the same tokens in training and in inference.

This module does not import transformers, because scoring the int4 model uses `truncate` too.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING

from tunepress.core.errors import InputError
from tunepress.text.segments import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = list[int]
Example = dict[str, Tokens]  # `input_ids` and `labels` of the same length

IGNORE_INDEX = -100  # the label that transformers excludes from the loss
PARALLELISM = "TOKENIZERS_PARALLELISM"
CONTEXT = 20  # characters before a text that can change its tokens: those of a special token


def truncate(completion: Tokens, prompt: Tokens, source_max_len: int | None) -> Tokens:
    """The tokens of a completion that fit a row of `source_max_len` tokens after its prompt, at least one; None: all of them."""
    return completion if source_max_len is None else completion[: max(source_max_len - len(prompt), 1)]


def continuation(encode: Callable[[str], Tokens], text: str, after: str) -> Tokens:
    """The tokens of a text that continues another one: those of both together without those of the first.

    A tokenizer may encode a text differently at the beginning: SentencePiece's begins with a space, and a special token may take
    the white space after it. Where a token would contain parts of both texts, the text is encoded alone.

    Args:
        encode: a tokenizer that adds no special tokens.
        text: to encode.
        after: what is before it; only its end matters.
    """
    end = after[-CONTEXT:]
    return _after(encode(end), encode(end + text), lambda: encode(text))


def _after(first: Tokens, both: Tokens, alone: Callable[[], Tokens]) -> Tokens:
    return both[len(first) :] if both[: len(first)] == first else alone()


@contextmanager
def _all_cores() -> Iterator[None]:
    """Lets tokenizers work on all cores; it reads the variable, which tunepress.core sets, at each call."""
    set_before = os.environ.get(PARALLELISM)
    os.environ[PARALLELISM] = "true"
    try:
        yield
    finally:
        if set_before is None:
            del os.environ[PARALLELISM]
        else:
            os.environ[PARALLELISM] = set_before


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
        eos_token_ids: tokens that end an answer. The first is appended to a row that does not end with one of them.
        without_embedding: special tokens of the tokenizer for which the model has no embedding.
    """

    tokenizer: "PreTrainedTokenizerBase"
    eos_token_ids: Tokens
    without_embedding: frozenset[int] = frozenset()

    @property
    def added_bos(self) -> str:
        """The text of the BOS token if the tokenizer adds it, so that a rendered conversation must not begin with it."""
        bos = self.tokenizer.bos_token
        return bos if bos and self.encode_prompt("")[:1] == [self.tokenizer.bos_token_id] else ""

    def encode_prompt(self, text: str) -> Tokens:
        """Tokens of a prompt, including the BOS token if the tokenizer adds one."""
        return list(self.tokenizer(text)["input_ids"])

    def encode_completion(self, text: str, after: str) -> Tokens:
        """Tokens of a completion after a prompt, including an EOS token at the end."""
        return self._ended(continuation(self._bare, text, after))

    def encode_segments(self, rows: Sequence[Row]) -> list[list[Tokens]]:
        """The tokens of each segment of some rows. The tokenizer encodes them together, on all cores.

        Raises:
            InputError: a row has a token for which the model has no embedding.
        """
        prompts = self._batch([row["segments"][0]["text"] for row in rows], add_special_tokens=True)
        texts = (pairwise(segment["text"] for segment in row["segments"]) for row in rows)
        pairs = [(before[-CONTEXT:], text) for before, text in chain.from_iterable(texts)]
        later = map(self._later(pairs).__getitem__, pairs)
        encoded = [[prompt, *islice(later, len(row["segments"]) - 1)] for row, prompt in zip(rows, prompts, strict=True)]
        for tokens in encoded:
            tokens[-1] = self._ended(tokens[-1])
        if self.without_embedding:
            for row, tokens in zip(rows, encoded, strict=True):
                self._check_embeddings(row, tokens)
        return encoded

    def _check_embeddings(self, row: Row, encoded: list[Tokens]) -> None:
        if missing := self.without_embedding.intersection(chain.from_iterable(encoded)):
            token = self.tokenizer.convert_ids_to_tokens(min(missing))
            raise InputError(
                f"{row.get('source', 'a row')}: contains {token} (token {min(missing)}), for which the model has no embedding; "
                "remove it from the rows and the template, or resize the model's embeddings"
            )

    def _later(self, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], Tokens]:
        """The tokens of each text after the end of the text before it. Equal pairs, as of labels, are encoded once."""
        pairs = list(dict.fromkeys(pairs))
        ends = self._batch([end for end, _ in pairs])
        both = self._batch([end + text for end, text in pairs])
        tokens = (_after(end, whole, partial(self._bare, text)) for end, whole, (_, text) in zip(ends, both, pairs, strict=True))
        return dict(zip(pairs, tokens, strict=True))

    def encode_example(self, row: Row, source_max_len: int, completion_only_loss: bool) -> Example:
        """One training example: `input_ids` and `labels` of the same length, at most `source_max_len`."""
        (encoded,) = self.encode_segments([row])
        learned = [not completion_only_loss or segment["train"] for segment in row["segments"]]
        labels = [tokens if learn else [IGNORE_INDEX] * len(tokens) for tokens, learn in zip(encoded, learned, strict=True)]
        return {
            "input_ids": list(chain.from_iterable(encoded))[:source_max_len],
            "labels": list(chain.from_iterable(labels))[:source_max_len],
        }

    def _bare(self, text: str) -> Tokens:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _batch(self, texts: list[str], add_special_tokens: bool = False) -> list[Tokens]:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:  # a tokenizer in Python
            return [list(self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"]) for text in texts]
        backend.no_truncation()
        backend.no_padding()
        with _all_cores():
            return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)]

    def _ended(self, tokens: Tokens) -> Tokens:
        return tokens if tokens and tokens[-1] in self.eos_token_ids else [*tokens, self.eos_token_ids[0]]
