"""Computes the last decoder layer only at the positions whose logits are needed.

From the last layer, other positions need only keys and values: after its attention no position depends on another.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedModel

BY_POSITION = ("self_attn.q_proj", "self_attn.o_proj", "mlp")  # modules of a decoder layer, if it has them


class KeptPositions:
    """Hooks that make some modules of a model compute only the positions of `logits_to_keep`; all others are zero.

    Attributes:
        rows: indices of the positions in the current or last forward pass; None: all.
        length: total number of positions.
    """

    def __init__(self, model: PreTrainedModel, modules: list[Module]) -> None:
        self.rows: Tensor | None = None
        self.length = 0
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        for module in modules:
            module.register_forward_pre_hook(self._narrow)
            module.register_forward_hook(self._widen)

    def _begin(self, model: Module, args: Any, kwargs: dict[str, Any]) -> None:
        kept = kwargs.get("logits_to_keep")
        few = isinstance(kept, Tensor) and len(kept) > 0 and not torch.compiler.is_compiling()
        self.rows = kept if few else None

    def _narrow(self, module: Module, args: tuple[Tensor]) -> tuple[Tensor] | None:
        if self.rows is None:
            return None
        self.length = args[0].shape[1]
        return (args[0].index_select(1, self.rows),)

    def _widen(self, module: Module, args: Any, output: Tensor) -> Tensor | None:
        if self.rows is None:
            return None
        return output.new_zeros(len(output), self.length, *output.shape[2:]).index_copy(1, self.rows, output)


def skip_unread_positions(model: PreTrainedModel) -> list[str]:
    """Makes the last layer of a model skip the positions that are not in a tensor `logits_to_keep`.

    Returns:
        The names of the modules within the layer that do; none if the model has another structure.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    modules = {name: module for name, module in layers[-1].named_modules() if name in BY_POSITION} if layers else {}
    if modules:
        KeptPositions(model, list(modules.values()))
    return sorted(modules)
