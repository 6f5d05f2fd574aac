"""Training without a wasted product: no padding, no attention across examples, the head only where there is a label."""

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

BY_EXAMPLE = "sdpa_by_example"  # an attn_implementation for from_pretrained
MASKED = {"full_attention", "sliding_attention", "chunked_attention"}  # layers in which a mask keeps examples apart

FEWEST = 4  # positions whose logits are computed: oneMKL's products of two or three rows depend on the number of threads

EMPTY: PackedSequence = [{"input_ids": [0], "labels": [IGNORE_INDEX]}]  # what a process computes when there is no row left for it


@dataclass
class FlatteningCollator:
    """The collator: a batch of sequences as one row of examples.

    Attributes:
        boundaries: whether to tell where the examples begin, as flash attention reads it.
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
    """A Trainer for batches of `FlatteningCollator`, and no others.

    Its datasets are lists of sequences with EMPTY behind them, and `sampler` says which come when.
    """

    def __init__(self, *, sampler: SequenceSampler, split_examples: bool = False, **arguments: Any) -> None:
        """Takes the arguments of Trainer, the sampler of the training sequences, and whether each example is computed alone."""
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
        # transformers counts the labels of all processes, and DDP then takes the mean of their gradients
        loss = loss / count if num_items_in_batch is None else loss * self.accelerator.num_processes / num_items_in_batch
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """Cross-entropy over all labels of the validation rows, whatever the batch size and the number of processes.

        transformers' own takes the mean of the batches' means, and several processes would see some rows twice.
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
        """This process's share of the validation rows, in as many batches as each of the others has."""
        size, processes = self.args.eval_batch_size, self.accelerator.num_processes
        sequences: list[PackedSequence] = list(self.eval_dataset)
        sequences += [EMPTY] * (-len(sequences) % (size * processes) if processes > 1 else 0)
        for start in range(self.accelerator.process_index * size, len(sequences), size * processes):
            yield sequences[start : start + size]


def joinable(model: PreTrainedModel) -> bool:
    """Whether examples of a row do not reach each other: attention can be masked, and a convolution or a state cannot."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or []
    convolutions = any(isinstance(module, torch.nn.Conv1d) for module in model.modules())
    return model._supports_attention_backend and not (model._is_stateful or convolutions or set(kinds) - MASKED)


def must_split(model: PreTrainedModel) -> bool:
    """Whether the examples of a row must go through a loaded model one at a time."""
    by_boundaries = model.config._attn_implementation.startswith((BY_EXAMPLE, "flash"))
    return not joinable(model) or not (by_boundaries or masks_by_position(model))


@torch.no_grad()
def masks_by_position(model: PreTrainedModel) -> bool:
    """Whether an example of a row leaves the logits of the next one alone where a model makes a mask of the whole row.

    transformers 5.23 masks by position_ids, which some models (GPT-OSS, OPT, AFMoE) do not hand on to `create_causal_mask`.
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
    rounding = torch.finfo(model.dtype).eps ** 0.5  # of experts, whose products are as long as many tokens go to each
    return bool((second[0] - second[1]).abs().max() <= rounding * second[0].std())


def attention_of(model: PreTrainedModel, train: Train) -> str:
    """The attn_implementation that a model is trained with: another one than asked for where BY_EXAMPLE does not apply.

    torch.compile would trace it anew for each batch, whose examples have other lengths.
    """
    suits = joinable(model) and model._supports_sdpa and not train.torch_compile
    if train.attn_implementation != BY_EXAMPLE or suits:
        return train.attn_implementation
    return "sdpa" if model._supports_sdpa else "eager"


def summed_loss(model: torch.nn.Module, inputs: Mapping[str, Any], split_examples: bool = False) -> tuple[torch.Tensor, int, Any]:
    """The cross-entropy of a joined batch summed over its labels, how many those are, and the model's outputs.

    Args:
        model: the model, or what wraps it.
        inputs: of FlatteningCollator.
        split_examples: whether each example goes through the model alone; then the outputs are those of the last one.
    """
    if split_examples:
        parts = [summed_loss(model, example) for example in split(inputs)]
        return torch.stack([loss for loss, _, _ in parts]).sum(), sum(count for _, count, _ in parts), parts[-1][2]
    following = inputs["labels"][0, 1:]  # the collator ignores each example's first token, so none predicts the next's
    predicting = (following != IGNORE_INDEX).nonzero().squeeze(-1)
    count = len(predicting)
    if count < FEWEST:
        predicting = torch.cat([predicting, (following == IGNORE_INDEX).nonzero().squeeze(-1)[: FEWEST - count]])
    rest = {name: value for name, value in inputs.items() if name != "labels"}
    # with a cache transformers would take the joined row for one sequence
    outputs = model(**rest, logits_to_keep=predicting, use_cache=False)
    return cross_entropy(outputs.logits[0].float(), following[predicting], reduction="sum"), count, outputs


def split(inputs: Mapping[str, Any]) -> Iterator[dict[str, torch.Tensor]]:
    """The examples of a batch of FlatteningCollator(on_host=True)."""
    names = ("input_ids", "labels", "position_ids")
    for start, end in pairwise(inputs["cu_seq_lens_q"]):
        yield {name: inputs[name][:, start:end] for name in names}


def mask_by_example(
    *, q_length: int, local_size: int | None = None, use_vmap: bool = False, **options: Any
) -> torch.Tensor | None:
    """The mask of a joined row, [1, 1, tokens, tokens], or None where boundaries say all.

    Args:
        q_length: tokens of the row.
        local_size: of a layer's window or chunk. Not every model tells its window to the attention (Qwen2-MoE, PhiMoE).
        use_vmap: whether a model has a mask function of its own.
        options: the rest of what transformers tells `sdpa_mask`.
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

    One mask over the row costs the square of its tokens, 16 times too much for 16 examples, and a CPU has no kernel that
    skips the masked part: a quarter of the training time of short rows.

    Args:
        module: the attention layer.
        query: [1, heads, tokens, head_dim]; key and value the same with their own number of heads.
        key: see query.
        value: see query.
        attention_mask: of `mask_by_example`, read where an example has tokens that do not see all before them.
        cu_seq_lens_q: where the examples begin and the last one ends; a tensor on a GPU is waited for in each layer.
        sliding_window: tokens that a token sees, itself included.
        options: scaling and dropout, as transformers hands them to its own attention functions.

    Returns:
        [1, tokens, heads, head_dim] and no weights.
    """
    if cu_seq_lens_q is None:
        raise ValueError(f"{BY_EXAMPLE} needs the boundaries of FlatteningCollator, which the model has not passed on; use sdpa")
    starts = cu_seq_lens_q.tolist() if isinstance(cu_seq_lens_q, torch.Tensor) else cu_seq_lens_q
    lengths = [end - start for start, end in pairwise(starts)]
    parts = []
    # split, for the gradient of a slice is a row of zeros as long as the joined one, for each example
    for start, length, *one in zip(starts, lengths, *(x.split(lengths, dim=2) for x in (query, key, value)), strict=False):
        seen, whole = None, sliding_window is not None and length <= sliding_window
        if attention_mask is not None and not whole:
            seen = attention_mask[..., start : start + length, start : start + length]
        elif sliding_window is not None and not whole:
            seen = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - sliding_window)
        parts.append(sdpa_attention_forward(module, *one, seen, is_causal=seen is None, **options)[0])
    return torch.cat(parts, dim=1), None


AttentionInterface.register(BY_EXAMPLE, attention_by_example)
AttentionMaskInterface.register(BY_EXAMPLE, mask_by_example)
