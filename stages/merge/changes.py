"""Decides which of the base model's tensors a merge changes, and how; nothing is computed or written yet."""

from dataclasses import dataclass

from transformers import PreTrainedModel

from stages.merge.adapter_weights import AdapterWeights, match_weights
from stages.merge.delta import Change
from tunepress.core.errors import InputError
from tunepress.models.bnb_4bit import Quantization, quantized_weight_names
from tunepress.models.peft_adapter import PeftAdapter
from tunepress.models.shards import Shards, StoredTensor


@dataclass(frozen=True)
class Changes:
    """The changes of a merge.

    Attributes:
        layers: number of layers that the adapter changes.
        tensors: the changed tensors by name: some of the base model's files, and added ones.
        untied: whether a head and an embedding that shared their weights no longer do.
    """

    layers: int
    tensors: dict[str, Change]
    untied: bool


def plan_changes(model: PreTrainedModel, base: Shards, adapter: PeftAdapter, quantization: Quantization | None) -> Changes:
    """Plans the merge of `adapter` into `base`.

    If the adapter changes only one of two tied weights, or each in its own way, they are untied, as they were in the
    model that was trained. peft's own merge adds the embedding's product to the head as well.

    Args:
        model: the base model without weights; the adapter is added to it.
        base: its weights.
        adapter: the adapter.
        quantization: the quantization that each linear weight goes through first; None: none.

    Raises:
        InputError: the adapter was made for another model, or the weights do not fit config.json.
    """
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    tied: dict[str, str] = model.get_expanded_tied_weights_keys(all_submodels=True)  # the embedding by the head's name
    quantized = quantized_weight_names(model) if quantization else []
    weights = match_weights(adapter, model)
    originals = original_tensors(base, tied)
    tensors = {}
    for name in dict.fromkeys([*quantized, *weights.products, *weights.biases, *weights.replacements]):
        if name not in originals or originals[name].shape != shapes[name]:
            actual = f"has the shape {list(originals[name].shape)}" if name in originals else "is missing"
            raise InputError(
                f"{base.folder}: {name} {actual}; by config.json its shape is {list(shapes[name])}; fetch the model again"
            )
        tensors[name] = plan_change(name, originals[name], weights, quantization if name in quantized else None)
    pairs = {target: source for target, source in tied.items() if target in tensors or source in tensors}
    if adapter.config.ensure_weight_tying:
        return Changes(weights.layers, keep_tied(tensors, pairs, base), untied=False)
    for name in (*pairs, *pairs.values()):
        tensors.setdefault(name, Change(name, originals[name], originals[name]))
    return Changes(weights.layers, tensors, untied=bool(pairs))


def original_tensors(base: Shards, tied: dict[str, str]) -> dict[str, StoredTensor]:
    """The base model's tensors by name; both names of a tied pair have the tensor that is in the files."""
    partner = tied | {source: target for target, source in tied.items()}
    return {name: base.tensors[partner[name]] for name in partner if partner[name] in base.tensors} | dict(base.tensors)


def plan_change(name: str, original: StoredTensor, weights: AdapterWeights, quantization: Quantization | None) -> Change:
    """The change of one tensor; a tensor that the adapter replaces was not quantized when it was trained."""
    original.check_type()
    replacement = weights.replacements.get(name)
    return Change(
        name,
        original=original,
        source=replacement or original,
        quantization=None if replacement else quantization,
        product=weights.products.get(name),
        bias=weights.biases.get(name),
    )


def keep_tied(tensors: dict[str, Change], pairs: dict[str, str], base: Shards) -> dict[str, Change]:
    """The changes if tied weights stay tied: the embedding's change under whichever name the files have."""
    rest = {name: change for name, change in tensors.items() if name not in pairs and name not in pairs.values()}
    embeddings = {name: tensors[source] for target, source in pairs.items() for name in (target, source)}
    return rest | {name: change for name, change in embeddings.items() if name in base.tensors}
