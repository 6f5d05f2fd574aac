"""A causal language model with one decoder layer in memory at a time: all inputs pass a layer before the next is loaded."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module
from transformers import AutoConfig, AutoModelForCausalLM

from tunepress.models.shards import Shards

Tokens = list[int]
BATCH_TOKENS = 1024  # higher is faster, until the products are large enough, and takes more memory


@dataclass
class Batch:
    """Sequences of one length between two layers.

    Attributes:
        hidden: [sequences, tokens, hidden_size].
        kwargs: for each layer what the model hands it besides, masks and positions.
    """

    hidden: Tensor
    kwargs: list[dict[str, Any]]


class LayerwiseModel:
    """The decoder of a model folder, its layers on torch's meta device until they are needed."""

    def __init__(self, folder: Path) -> None:
        self.tensors = Shards.of(folder).tensors
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
        self.decoder = model.eval().get_decoder()
        self.prefix = next(name for name, module in model.named_modules() if module is self.decoder)
        self.layers: list[Module] = list(self.decoder.layers)
        self.decoder.rotary_emb = type(self.decoder.rotary_emb)(config=config)  # its buffers are in no file

    @torch.no_grad()
    def embed(self, sequences: list[Tokens]) -> list[Batch]:
        """The inputs of the first layer; sequences of one length go together, and none is padded."""
        by_length: dict[int, list[Tokens]] = defaultdict(list)
        for tokens in sequences:
            by_length[len(tokens)].append(tokens)
        self._load(self.decoder.embed_tokens, "embed_tokens")
        batches = [
            self._begin(torch.tensor(alike[start : start + max(1, BATCH_TOKENS // length)]))
            for length, alike in sorted(by_length.items())
            for start in range(0, len(alike), max(1, BATCH_TOKENS // length))
        ]
        self.decoder.embed_tokens.to("meta")
        return batches

    def _begin(self, input_ids: Tensor) -> Batch:
        """Runs the model with layers that compute nothing and keep what they are given."""
        batch = Batch(torch.empty(0), [])

        def keep(hidden_states: Tensor, **kwargs: Any) -> Tensor:
            batch.hidden = hidden_states
            batch.kwargs.append(kwargs)
            return hidden_states

        norm = self.decoder.norm
        for layer in self.layers:
            layer.forward = keep
        self.decoder.norm = torch.nn.Identity()
        self.decoder(input_ids=input_ids, use_cache=False)
        self.decoder.norm = norm
        for layer in self.layers:
            del layer.forward
        return batch

    def loaded(self) -> Iterator[tuple[int, Module]]:
        """Each layer in turn with its weights as float32, which it has until the next one is asked for."""
        for number, layer in enumerate(self.layers):
            self._load(layer, f"layers.{number}")
            yield number, layer
            layer.to("meta")

    def _load(self, module: Module, name: str) -> None:
        module.to_empty(device="cpu")
        for parameter, values in module.named_parameters():
            values.data = self.tensors[f"{self.prefix}.{name}.{parameter}"].read().float()


@torch.no_grad()
def run(layer: Module, number: int, batches: list[Batch]) -> list[Tensor]:
    """The layer's outputs for all batches."""
    return [layer(batch.hidden, **batch.kwargs[number]) for batch in batches]


@torch.no_grad()
def by_input(layer: Module, number: int, batch: Batch) -> list[list[str]]:
    """The names of a layer's linear modules in the order they run, those with the same input together."""
    seen: list[tuple[str, Tensor]] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, given, name=name: seen.append((name, given[0])))
        for name, module in layer.named_modules()
        if isinstance(module, Linear)
    ]
    layer(batch.hidden, **batch.kwargs[number])
    for hook in hooks:
        hook.remove()
    groups: list[list[str]] = []
    for place, (name, given) in enumerate(seen):
        if place and given is seen[place - 1][1]:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


@torch.no_grad()
def second_moment(layer: Module, number: int, batches: list[Batch], name: str) -> Tensor:
    """Sum of x x^T over all inputs x of one of a layer's linear modules, [in, in]."""
    module = layer.get_submodule(name)
    assert isinstance(module, Linear)
    total = torch.zeros(module.in_features, module.in_features)

    def add(_: Module, given: tuple[Tensor]) -> None:
        rows = given[0].flatten(0, -2)
        total.addmm_(rows.t(), rows)
        raise InputSeen

    hook = module.register_forward_pre_hook(add)
    for batch in batches:
        with suppress(InputSeen):
            layer(batch.hidden, **batch.kwargs[number])
    hook.remove()
    return total


class InputSeen(Exception):  # noqa: N818  (not an error)
    """A module's input is known, and the rest of the layer needn't run."""
