"""Guidance for torch: a logits processor of transformers with llguidance's matcher."""

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from torch import FloatTensor, LongTensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

from tunepress.core.errors import InputError


class GuidedLogits(LogitsProcessor):
    """Leaves each row of a batch the tokens that a grammar allows next.

    Args:
        tokenizer: from `grammar_tokenizer`.
        eos_token_ids: tokens that end an answer.
        grammar: in llguidance's variant of Lark.
        rows: number of prompts.
        prompt_length: of all prompts, in tokens.
    """

    def __init__(self, tokenizer: LLTokenizer, eos_token_ids: list[int], grammar: str, rows: int, prompt_length: int) -> None:
        first = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar))
        if first.is_error():
            raise InputError(f"evaluate.guidance: {first.get_error().splitlines()[0]}")
        self._matchers = [first, *(first.deep_copy() for _ in range(rows - 1))]
        self._eos_token_ids, self._prompt_length = eos_token_ids, prompt_length

    def __call__(self, input_ids: LongTensor, scores: FloatTensor) -> FloatTensor:
        started = input_ids.shape[1] > self._prompt_length
        for row, matcher in enumerate(self._matchers):
            if started and not matcher.is_stopped():
                matcher.consume_token(int(input_ids[row, -1]))
            scores[row, ~self._allowed(matcher, scores.shape[1]).to(scores.device)] = -torch.inf
        return scores

    def _allowed(self, matcher: LLMatcher, vocabulary: int) -> torch.Tensor:
        """Whether each token is allowed, [vocabulary]; after a whole answer only its end."""
        allowed = torch.zeros(vocabulary, dtype=torch.bool)
        if matcher.is_stopped():
            allowed[self._eos_token_ids] = True
            return allowed
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little").astype(bool)
        length = min(len(bits), vocabulary)
        allowed[:length] = torch.from_numpy(bits[:length])
        return allowed


def grammar_tokenizer(tokenizer: PreTrainedTokenizerBase, eos_token_ids: list[int]) -> LLTokenizer:
    """Llguidance's view of a tokenizer. Making it takes about a second.

    Raises:
        InputError: the tokenizer is not of the package tokenizers.
    """
    try:
        return from_tokenizer(tokenizer, eos_token=eos_token_ids)
    except ValueError as error:
        raise InputError(f"evaluate.guidance: {error}; set it to null") from error
