"""Trains without unnecessary products: no padding, no attention across examples, logits only where there is a label."""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AttentionInterface, AttentionMaskInterface, DataCollatorWithFlattening, PreTrainedModel, TrainerControl
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from stages.train.checkpoints import ResumableTrainer
from stages.train.sampler import SequenceSampler
from tunepress.config.train import Train
from tunepress.text.packing import PackedSequence
from tunepress.text.tokenizer import IGNORE_INDEX

BY_EXAMPLE = "sdpa_by_example"  # this module's attn_implementation for from_pretrained
MASKED = {"full_attention", "sliding_attention", "chunked_attention"}  # layer types in which a mask separates examples

MIN_POSITIONS = 4  # whose logits are computed: oneMKL's products of two or three rows depend on the number of threads

EMPTY: PackedSequence = [{"input_ids": [0], "labels": [IGNORE_INDEX]}]  # what a process computes when no row is left for it


@dataclass
class FlatteningCollator:
    """Collates a batch of sequences into one row of examples.

    Attributes:
        boundaries: whether to add the boundaries of the examples, in the form that flash attention needs.
        on_host: whether the boundaries are a list instead, which can be read without waiting for a GPU.
    """

    boundaries: bool
    on_host: bool = False

    def __call__(self, batch: list[PackedSequence]) -> dict[str, Any]:
        """`input_ids`, `labels` and `position_ids` [1, tokens], the positions starting over at each example."""
        examples = [example for sequence in batch for example in sequence]
        collate = DataCollatorWithFlattening(return_flash_attn_kwargs=self.boundaries and not self.on_host)
        joined: dict[str, Any] = collate(examples)
        if self.on_host:
            joined["cu_seq_lens_q"] = list(accumulate((len(example["input_ids"]) for example in examples), initial=0))
        return joined


class PaddingFreeTrainer(ResumableTrainer):
    """A Trainer for batches of `FlatteningCollator` only.

    Its datasets are lists of sequences that end with EMPTY, and `sampler` decides their order.
    """

    def __init__(self, *, sampler: SequenceSampler, split_examples: bool = False, **arguments: Any) -> None:
        """Takes the sampler of the training sequences, whether each example is computed alone, and Trainer's arguments."""
        super().__init__(**arguments)
        self.sampler, self.split_examples = sampler, split_examples

    def _get_train_sampler(self, train_dataset: Any = None) -> SequenceSampler:
        return self.sampler

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Cross-entropy, summed over the labels and divided by the number of labels in the whole step."""
        loss, count, outputs = summed_loss(model, inputs, self.split_examples)
        # transformers counts the labels of all processes, and DDP then averages their gradients
        loss = loss / count if num_items_in_batch is None else loss * self.accelerator.num_processes / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Cross-entropy over all labels of the validation rows, whatever the batch size and the number of processes.

        transformers' own method averages the batches' means, and several processes would score some rows twice.
        """
        model = self.model_wrapped if self.is_fsdp_enabled else self.model
        model.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in self.eval_batches():
                loss, count, _ = summed_loss(model, self._prepare_inputs(self.data_collator(batch)), self.split_examples)
                total += torch.tensor([loss.item(), count], dtype=torch.float64, device=self.args.device)
        loss, count = self.accelerator.reduce(total).tolist()
        metrics = {"eval_loss": loss / max(count, 1)}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def eval_batches(self) -> Iterator[list[PackedSequence]]:
        """This process's share of the validation rows; every process has the same number of batches."""
        size, processes = self.args.eval_batch_size, self.accelerator.num_processes
        sequences: list[PackedSequence] = list(self.eval_dataset)
        sequences += [EMPTY] * (-len(sequences) % (size * processes) if processes > 1 else 0)
        for start in range(self.accelerator.process_index * size, len(sequences), size * processes):
            yield sequences[start : start + size]


def joinable(model: PreTrainedModel) -> bool:
    """Whether the examples of a row can be kept separate: attention can be masked, a convolution or a state cannot."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or []
    convolutions = any(isinstance(module, torch.nn.Conv1d) for module in model.modules())
    return model._supports_attention_backend and not (model._is_stateful or convolutions or set(kinds) - MASKED)


def must_split(model: PreTrainedModel) -> bool:
    """Whether a loaded model must compute the examples of a row one at a time."""
    by_boundaries = model.config._attn_implementation.startswith((BY_EXAMPLE, "flash"))
    return not joinable(model) or not (by_boundaries or masks_by_position(model))


@torch.no_grad()
def masks_by_position(model: PreTrainedModel) -> bool:
    """Whether a model that masks a whole row keeps an example from changing the logits of the next one.

    transformers 5.23 masks by position_ids, which some models (GPT-OSS, OPT, AFMoE) do not pass to `create_causal_mask`.
    """
    training = model.training
    model.eval()
    second: list[torch.Tensor] = []
    for token in (0, 1):
        batch = FlatteningCollator(boundaries=False)(
            [[{"input_ids": tokens, "labels": tokens}] for tokens in ([token] * 4, [2, 3, 4, 5])]
        )
        inputs = {name: batch[name].to(model.device) for name in ("input_ids", "position_ids")}
        second.append(model(**inputs, use_cache=False).logits[0, 4:].float())
    model.train(training)
    rounding = (
        torch.finfo(model.dtype).eps ** 0.5
    )  # of experts: the length of their products depends on how many tokens each gets
    return bool((second[0] - second[1]).abs().max() <= rounding * second[0].std())


def attention_of(model: PreTrainedModel, train: Train) -> str:
    """The attn_implementation that a model is trained with: the configured one, unless that is BY_EXAMPLE and it does not apply.

    torch.compile would trace BY_EXAMPLE again for each batch, because the lengths of the examples differ.
    """
    applies = joinable(model) and model._supports_sdpa and not train.torch_compile
    if train.attn_implementation != BY_EXAMPLE or applies:
        return train.attn_implementation
    return "sdpa" if model._supports_sdpa else "eager"


def summed_loss(model: torch.nn.Module, inputs: Mapping[str, Any], split_examples: bool = False) -> tuple[torch.Tensor, int, Any]:
    """The cross-entropy of a joined batch summed over its labels, their number, and the model's outputs.

    Args:
        model: the model or its wrapper.
        inputs: a batch of FlatteningCollator.
        split_examples: whether to compute each example alone; then the outputs are those of the last one.
    """
    if split_examples:
        parts = [summed_loss(model, example) for example in split(inputs)]
        return torch.stack([loss for loss, _, _ in parts]).sum(), sum(count for _, count, _ in parts), parts[-1][2]
    next_labels = inputs["labels"][0, 1:]  # the collator ignores each example's first token, so none predicts the next's
    predicting = (next_labels != IGNORE_INDEX).nonzero().squeeze(-1)
    count = len(predicting)
    if count < MIN_POSITIONS:
        predicting = torch.cat([predicting, (next_labels == IGNORE_INDEX).nonzero().squeeze(-1)[: MIN_POSITIONS - count]])
    rest = {name: value for name, value in inputs.items() if name != "labels"}
    # with a cache, transformers would treat the joined row as one sequence
    outputs = model(**rest, logits_to_keep=predicting, use_cache=False)
    return cross_entropy(outputs.logits[0].float(), next_labels[predicting], reduction="sum"), count, outputs


def split(inputs: Mapping[str, Any]) -> Iterator[dict[str, torch.Tensor]]:
    """Yields the examples of a batch of FlatteningCollator(on_host=True)."""
    names = ("input_ids", "labels", "position_ids")
    for start, end in pairwise(inputs["cu_seq_lens_q"]):
        yield {name: inputs[name][:, start:end] for name in names}


def mask_by_example(
    *, q_length: int, local_size: int | None = None, use_vmap: bool = False, **options: Any
) -> torch.Tensor | None:
    """The mask of a joined row, [1, 1, tokens, tokens], or None if the boundaries are enough.

    Args:
        q_length: number of tokens of the row.
        local_size: size of a layer's window or chunk. Not every model passes its window to the attention (Qwen2-MoE, PhiMoE).
        use_vmap: whether a model has its own mask function.
        options: the other arguments that transformers passes to `sdpa_mask`.
    """
    if not use_vmap and (local_size is None or q_length <= local_size):
        return None
    mask: torch.Tensor | None = sdpa_mask(q_length=q_length, local_size=local_size, use_vmap=use_vmap, **options)
    return mask


def attention_by_example(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cu_seq_lens_q: torch.Tensor | Ordered[int] | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each example of a joined row.

    The cost of one mask over the row is the square of its tokens, 16 times too much for 16 examples, and a CPU has no kernel
    that skips the masked part: a quarter of the training time of short rows.

    Args:
        module: the attention layer.
        query: [1, heads, tokens, head_dim]; key and value the same with their own number of heads.
        key: see query.
        value: see query.
        attention_mask: from `mask_by_example`, used for examples whose tokens do not see all tokens before them.
        cu_seq_lens_q: the boundaries of the examples; each layer waits for a tensor on a GPU.
        sliding_window: number of tokens that a token sees, including itself.
        options: scaling and dropout, as transformers passes them to its own attention functions.

    Returns:
        [1, tokens, heads, head_dim] and no weights.
    """
    if cu_seq_lens_q is None:
        raise ValueError(f"{BY_EXAMPLE} needs the boundaries of FlatteningCollator, which the model does not pass on; use sdpa")
    starts = cu_seq_lens_q.tolist() if isinstance(cu_seq_lens_q, torch.Tensor) else cu_seq_lens_q
    lengths = [end - start for start, end in pairwise(starts)]
    parts = []
    # split, because the gradient of a slice is, for each example, a row of zeros as long as the joined one
    for start, length, *example in zip(starts, lengths, *(x.split(lengths, dim=2) for x in (query, key, value)), strict=False):
        mask, whole = None, sliding_window is not None and length <= sliding_window
        if attention_mask is not None and not whole:
            mask = attention_mask[..., start : start + length, start : start + length]
        elif sliding_window is not None and not whole:
            mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - sliding_window)
        parts.append(sdpa_attention_forward(module, *example, mask, is_causal=mask is None, **options)[0])
    return torch.cat(parts, dim=1), None


AttentionInterface.register(BY_EXAMPLE, attention_by_example)
AttentionMaskInterface.register(BY_EXAMPLE, mask_by_example)
