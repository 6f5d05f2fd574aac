"""Which of the base model's tensors a merge changes, and into what: nothing is computed or written yet."""

from dataclasses import dataclass

from transformers import PreTrainedModel

from stages.merge.adapter_file import AdapterFile, Pieces
from stages.merge.delta import Change
from tunepress.core.errors import InputError
from tunepress.models.bnb_4bit import Quantization, quantized_weight_names
from tunepress.models.shards import Shards, StoredTensor


@dataclass(frozen=True)
class Changes:
    """What a merge does.

    Attributes:
        layers: how many the adapter stands on.
        tensors: by name, those that the base model's files have and those that come in addition.
        untied: whether a head and an embedding that were one are two from now on.
    """

    layers: int
    tensors: dict[str, Change]
    untied: bool


def changes_of(model: PreTrainedModel, base: Shards, adapter: AdapterFile, quantization: Quantization | None) -> Changes:
    """What merging `adapter` does to `base`.

    Where the adapter changes only one of two tied weights, or each in its own way, they become two, as they were in the
    model that was trained. peft's own merge gives the head the embedding's product too.

    Args:
        model: the base model without weights; the adapter is put on it.
        base: its weights.
        adapter: what is added to them.
        quantization: what each linear weight goes through before; None: nothing.

    Raises:
        InputError: the adapter was not made for this model, or the weights are not those of the model.
    """
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    tied: dict[str, str] = model.get_expanded_tied_weights_keys(all_submodels=True)  # the embedding by the head's name
    rounded = quantized_weight_names(model) if quantization else []
    pieces = adapter.pieces(model)
    origins = origins_of(base, tied)
    tensors = {}
    for name in dict.fromkeys([*rounded, *pieces.products, *pieces.shifts, *pieces.whole]):
        if name not in origins or origins[name].shape != shapes[name]:
            found = f"is {list(origins[name].shape)}" if name in origins else "is missing"
            raise InputError(f"{base.folder}: by its config.json {name} is {list(shapes[name])}, in its files it {found}")
        tensors[name] = change_of(name, origins[name], pieces, quantization if name in rounded else None)
    pairs = {target: source for target, source in tied.items() if target in tensors or source in tensors}
    if adapter.config.ensure_weight_tying:
        return Changes(pieces.layers, together(tensors, pairs, base), untied=False)
    for name in (*pairs, *pairs.values()):
        tensors.setdefault(name, Change(name, origins[name], origins[name]))
    return Changes(pieces.layers, tensors, untied=bool(pairs))


def origins_of(base: Shards, tied: dict[str, str]) -> dict[str, StoredTensor]:
    """The base model's tensors by name; of two that are tied, both names have the one that is in the files."""
    other = tied | {source: target for target, source in tied.items()}
    return {name: base.tensors[other[name]] for name in other if other[name] in base.tensors} | dict(base.tensors)


def change_of(name: str, origin: StoredTensor, pieces: Pieces, quantization: Quantization | None) -> Change:
    """What becomes of one tensor; one that the adapter brings whole was not rounded when it was trained."""
    origin.check_type()
    whole = pieces.whole.get(name)
    return Change(
        name,
        like=origin,
        source=whole or origin,
        rounding=None if whole else quantization,
        product=pieces.products.get(name),
        shift=pieces.shifts.get(name),
    )


def together(tensors: dict[str, Change], pairs: dict[str, str], base: Shards) -> dict[str, Change]:
    """The changes when tied weights stay so: the embedding's is the head's, under whichever name the files have it."""
    rest = {name: change for name, change in tensors.items() if name not in pairs and name not in pairs.values()}
    embeddings = {name: tensors[source] for target, source in pairs.items() for name in (target, source)}
    return rest | {name: change for name, change in embeddings.items() if name in base.tensors}
