"""Training without a wasted product: no padding, and the head only where there is something to learn."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import Trainer

from stages.lib.tokens import IGNORED


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
        outputs = model(**rest, logits_to_keep=predicting)
        count = len(predicting) if num_items_in_batch is None else num_items_in_batch
        loss = cross_entropy(outputs.logits[0].float(), following[predicting], reduction="sum") / count
        return (loss, outputs) if return_outputs else loss
