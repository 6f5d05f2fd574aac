"""A model whose weights are in memory only while they are needed, and which onnxruntime-genai's builder takes when quantized.

The builder itself loads the whole model in float32 before it rounds the first weight: 21.5 GB for 3.8 billion parameters.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from accelerate import init_empty_weights
from torch import Tensor
from torch.nn import Linear, Module, Parameter
from transformers import AutoModelForCausalLM, PreTrainedModel

from stages.build.quantize.blocks import QuantizedMatrix
from tunepress.models.hf_model import load_config
from tunepress.models.shards import Shards

Tokens = list[int]
BATCH_TOKENS = 1024  # higher is faster, until the products are large enough, and takes more memory
FUSED = {  # modules that are several for the builder
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),  # Phi-3
    "gate_up_proj": ("gate_proj", "up_proj"),
    "input_linear": ("gate_proj", "up_proj"),  # Granite's hybrids
}


@dataclass
class Batch:
    """Sequences of one length between two layers.

    Attributes:
        hidden: [sequences, tokens, hidden_size].
        kwargs: for each layer the other arguments that the model passes to it, such as masks and positions.
    """

    hidden: Tensor
    kwargs: list[dict[str, Any]]


class QuantizedLinear(Module):
    """A linear module with quantized weights, in the form that the builder (0.18, builders/base.py) writes as MatMulNBits."""

    def __init__(self, weight: QuantizedMatrix, bias: Parameter | None) -> None:
        super().__init__()
        self.out_features, blocks = weight.scales.shape
        self.in_features = weight.qweight.shape[1] * 8 // weight.bits
        self.bits, self.group_size = weight.bits, self.in_features // blocks
        self.qweight = weight.qweight.view(self.out_features, blocks, -1)
        self.scales, self.qzeros = weight.scales.reshape(-1), weight.qzeros.reshape(-1)
        self.g_idx, self.bias = None, bias


class OffloadedModel:
    """A causal language model whose parameters are on torch's meta device until they are needed.

    Attributes:
        folder: that the model is read from.
        config: its configuration, loaded by transformers.
        layers: the layers of its decoder, by name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = load_config(folder)
        self._tensors = Shards.of(folder).tensors
        with init_empty_weights(include_buffers=False):
            self._model: PreTrainedModel = AutoModelForCausalLM.from_config(self.config, dtype=torch.float32).eval()
        self._decoder = self._model.get_decoder()
        self._prefix = next(name for name, module in self._model.named_modules() if module is self._decoder)
        self.layers: dict[str, Module] = {
            f"{self._prefix}.layers.{number}": layer for number, layer in enumerate(self._decoder.layers)
        }

    def linear_modules(self, layer: str) -> dict[str, Linear]:
        """The linear modules of a layer, which are quantized, by name."""
        modules = self.layers[layer].named_modules(prefix=layer)
        return {name: module for name, module in modules if isinstance(module, Linear)}

    def load_layers(self) -> Iterator[str]:
        """Loads one layer after the other as float32, and yields its name."""
        for name, layer in self.layers.items():
            self._load(name, layer)
            yield name

    @torch.no_grad()
    def embed(self, sequences: list[Tokens]) -> list[Batch]:
        """Returns the inputs of the first layer; a batch has sequences of one length, so none is padded."""
        by_length: dict[int, list[Tokens]] = defaultdict(list)
        for tokens in sequences:
            by_length[len(tokens)].append(tokens)
        self._load(f"{self._prefix}.embed_tokens", self._decoder.embed_tokens)
        batches = [
            self._first_inputs(torch.tensor(same_length[start : start + max(1, BATCH_TOKENS // length)]))
            for length, same_length in sorted(by_length.items())
            for start in range(0, len(same_length), max(1, BATCH_TOKENS // length))
        ]
        self._decoder.embed_tokens.weight = Parameter(self._decoder.embed_tokens.weight.to("meta"))
        return batches

    def _first_inputs(self, input_ids: Tensor) -> Batch:
        """Runs the model with layers that compute nothing and record their arguments."""
        batch = Batch(torch.empty(0), [])

        def record(hidden_states: Tensor, **kwargs: Any) -> Tensor:
            batch.hidden = hidden_states
            batch.kwargs.append(kwargs)
            if len(batch.kwargs) == len(self.layers):
                raise LastLayer
            return hidden_states

        for layer in self.layers.values():
            layer.forward = record
        try:
            self._decoder(input_ids=input_ids, use_cache=False)
        except LastLayer:
            pass
        finally:
            for layer in self.layers.values():
                del layer.forward
        return batch

    def split(self, name: str, values: Tensor) -> dict[str, Tensor]:
        """Splits the weight or the bias of a module, [out, ...], into those of the modules that it is for the builder."""
        parent, _, key = name.rpartition(".")
        if key not in FUSED:
            return {name: values}
        sizes = [len(values) // 2] * 2
        if key == "qkv_proj":
            head_dim = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
            queries, keys = self.config.num_attention_heads * head_dim, self.config.num_key_value_heads * head_dim
            sizes = [queries, keys, keys]
        return {f"{parent}.{part}": rows for part, rows in zip(FUSED[key], values.split(sizes), strict=True)}

    def replace(self, layer: str, quantized: dict[str, QuantizedMatrix]) -> None:
        """Replaces the linear modules of a loaded layer by quantized ones."""
        for name, linear in self.linear_modules(layer).items():
            parent, _, key = name.rpartition(".")
            module = self._model.get_submodule(parent)
            biases = {} if linear.bias is None else self.split(name, linear.bias.data)
            setattr(module, key, None)
            for part in self.split(name, linear.weight.data):
                bias = Parameter(biases[part], requires_grad=False) if part in biases else None
                setattr(module, part.rpartition(".")[2], QuantizedLinear(quantized[part], bias))

    def complete(self) -> PreTrainedModel:
        """Loads what is not in a layer: embeddings and head in the type of the file, others as float32."""
        for name, parameter in list(self._model.named_parameters()):
            if parameter.is_meta and name in self._tensors:
                values = self._tensors[name].read()
                self._set(name, values if values.dim() > 1 else values.float())
        self._model.tie_weights()
        return self._model

    def _load(self, name: str, module: Module) -> None:
        for parameter, _ in list(module.named_parameters(prefix=name)):
            self._set(parameter, self._tensors[parameter].read().float())

    def _set(self, name: str, values: Tensor) -> None:
        parent, _, key = name.rpartition(".")
        setattr(self._model.get_submodule(parent), key, Parameter(values, requires_grad=False))


class LastLayer(Exception):  # noqa: N818  (not an error)
    """Stops the model once the arguments of all layers are known."""


def drop_neutral_zero_points(folder: Path) -> None:
    """Removes the zero points that are MatMulNBits's default from a built model.

    The builder requires zero points of quantized modules (0.18, builders/base.py, make_packed_matmul_int4_class), and writes
    accuracy_level even if it is 0, as for GPUs; its own rounding writes neither.
    """
    model = ir.load(folder / "model.onnx")
    for node in model.graph:
        if node.op_type != "MatMulNBits":
            continue
        level = node.attributes.get("accuracy_level")
        if level is not None and level.as_int() == 0:
            del node.attributes["accuracy_level"]
        zeros = node.inputs[3] if len(node.inputs) > 3 else None
        if zeros is not None and zeros.const_value is not None and zeros.name is not None:
            middle = 0x88 if node.attributes["bits"].as_int() == 4 else 0x80
            if (zeros.const_value.numpy() == middle).all():
                node.resize_inputs(3)
                if not zeros.uses():
                    del model.graph.initializers[zeros.name]
    slim = folder / "slim"
    slim.mkdir()
    ir.save(model, slim / "model.onnx", external_data="model.onnx.data", size_threshold_bytes=0)
    for file in slim.iterdir():
        file.replace(folder / file.name)
    slim.rmdir()
