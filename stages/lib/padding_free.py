"""Training without a wasted product: no padding, no attention across examples, the head only where there is a label."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AttentionInterface, Trainer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from stages.lib.tokens import IGNORED

BY_EXAMPLE = "sdpa_by_example"  # an attn_implementation for from_pretrained


class PaddingFreeTrainer(Trainer):
    """A Trainer for batches of transformers' DataCollatorWithFlattening, and no others.

    The examples of a batch stand in one row, `input_ids` and `labels` [1, tokens], with `position_ids` that start over
    at each example, by which transformers keeps them from seeing each other.
    """

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Cross-entropy, summed over the labels and divided by the number of labels in the whole step."""
        following = inputs["labels"][0, 1:]  # the collator ignores each example's first token, so none predicts the next's
        predicting = (following != IGNORED).nonzero().squeeze(-1)
        rest = {name: value for name, value in inputs.items() if name != "labels"}
        # with a cache transformers would take the joined row for one sequence
        outputs = model(**rest, logits_to_keep=predicting, use_cache=False)
        count = len(predicting) if num_items_in_batch is None else num_items_in_batch
        loss = cross_entropy(outputs.logits[0].float(), following[predicting], reduction="sum") / count
        return (loss, outputs) if return_outputs else loss


def attention_by_example(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cu_seq_lens_q: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each example of a joined row.

    One mask over the row costs the square of its tokens, 16 times too much for 16 examples, and a CPU has no kernel that
    skips the masked part: a quarter of the training time of short rows.

    Args:
        module: the attention layer.
        query: [1, heads, tokens, head_dim]; key and value the same with their own number of heads.
        key: see query.
        value: see query.
        attention_mask: not used, the mask follows from the boundaries.
        cu_seq_lens_q: where the examples begin and the last one ends, as the collator gives it.
        sliding_window: tokens that a token sees, itself included.
        options: scaling and dropout, as transformers hands them to its own attention functions.

    Returns:
        [1, tokens, heads, head_dim] and no weights.
    """
    if cu_seq_lens_q is None:
        raise ValueError(f"{BY_EXAMPLE} wants the boundaries of DataCollatorWithFlattening(return_flash_attn_kwargs=True)")
    parts = []
    for start, end in pairwise(cu_seq_lens_q.tolist()):
        seen = None
        if sliding_window is not None and end - start > sliding_window:
            seen = torch.ones(end - start, end - start, dtype=torch.bool, device=query.device).tril().triu(1 - sliding_window)
        one = (states[:, :, start:end] for states in (query, key, value))
        parts.append(sdpa_attention_forward(module, *one, seen, is_causal=seen is None, **options)[0])
    return torch.cat(parts, dim=1), None


AttentionInterface.register(BY_EXAMPLE, attention_by_example)
