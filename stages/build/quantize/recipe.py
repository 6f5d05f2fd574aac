"""The bits that a recipe gives each weight, and rounding to the nearest by onnxruntime's own quantizers, one matrix at a time."""

import contextlib
import io
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from stages.build.quantize.blocks import QuantizedMatrix

NODE = "/MatMul"  # the name of the product in a graph with a single product


@dataclass(frozen=True)
class WeightRecipe:
    """The part of a builder's recipe that quantizes weights.

    Attributes:
        method: default, rtn or k_quant.
        bits: bits of most weights.
        block_size: number of input features that share a scale.
        symmetric: whether there are no zero points.
        dtype: type of the weights before they are rounded, and of the scales.
        packed: whether the builder merges queries, keys and values into one product, so that they have the same bits.
        upgraded: the bits of the nodes of the builder's graph that have other bits.
    """

    method: str
    bits: int
    block_size: int
    symmetric: bool
    dtype: torch.dtype
    packed: bool
    upgraded: dict[str, int]

    @classmethod
    def of(cls, precision: str, execution_provider: str, options: dict[str, Any], layers: int) -> "WeightRecipe":
        """Reads the builder's options as the builder does.

        Args:
            precision: int4 or int8.
            execution_provider: the builder's name of the execution provider.
            options: the result of the builder's parse_extra_options.
            layers: number of layers of the model.
        """
        from onnxruntime_genai.models.builders.base import Model
        from onnxruntime_genai.models.quantization import QuantConfig

        config = QuantConfig.from_extra_options(options, precision, execution_provider)
        presets = {override.match["preset"]: override.type for override in config.weights.overrides if "preset" in override.match}
        outline = SimpleNamespace(num_layers=layers)  # all that the builder's rule for mixed precision reads of a model
        Model.make_matmul_mixed_precision(outline, presets)
        return cls(
            method=config.weights.method,
            bits=8 if precision == "int8" else 4,
            block_size=config.weights.block_size,
            symmetric=bool(config.weights.symmetric),
            dtype={"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[config.io_dtype],
            packed=execution_provider != "dml" and options.get("fuse_qkv", True),
            upgraded={node: settings["bits"] for node, settings in outline.int4_customized_weight_config.items()},
        )

    def bits_of(self, module: str) -> int:
        """The bits of the weight of a module such as model.layers.0.self_attn.q_proj."""
        layer, block, name = module.rsplit(".", 2)
        block, name = {"self_attn": "attn", "shared_mlp": "mlp"}.get(block, block), {"output_linear": "down_proj"}.get(name, name)
        if self.packed and name in {"q_proj", "k_proj", "v_proj"}:
            name = "qkv_proj"
        node = f"/{layer.replace('.', '/', 1)}/{block}/{name}/MatMul"
        return self.upgraded.get(node, self.bits)

    def quantize(self, weight: Tensor, bits: int) -> QuantizedMatrix:
        """Rounds a weight [out, in] as in the builder's graph, in a graph with only this product."""
        from onnxruntime.quantization.matmul_nbits_quantizer import (
            KQuantWeightOnlyQuantConfig,
            MatMulNBitsQuantizer,
            RTNWeightOnlyQuantConfig,
        )

        own = {"customized_weight_config": {NODE: {"bits": bits}}}
        configs = {"rtn": RTNWeightOnlyQuantConfig, "k_quant": KQuantWeightOnlyQuantConfig}
        quantizer = MatMulNBitsQuantizer(
            model=one_product(weight.to(self.dtype)),
            bits=bits,
            block_size=self.block_size,
            is_symmetric=self.symmetric,
            op_types_to_quantize=("MatMul",),
            algo_config=configs[self.method](**own) if self.method in configs else None,
        )
        with contextlib.redirect_stdout(io.StringIO()):  # hides a progress bar for the single product
            quantizer.process()
        graph = quantizer.model.model.graph
        (node,) = graph.node
        initializers = {initializer.name: initializer for initializer in graph.initializer}
        qweight, scales, *zeros = (tensor(initializers[name]) for name in node.input[1:])
        rows, blocks = qweight.shape[:2]
        zero_points = zeros[0].view(rows, -1) if zeros else QuantizedMatrix.neutral_zeros(rows, blocks, bits)
        return QuantizedMatrix(qweight.view(rows, -1), scales.view(rows, blocks), zero_points, bits)


def one_product(weight: Tensor) -> onnx.ModelProto:
    """A graph with a single MatMul whose weight, [out, in], is constant."""
    types = {torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16, torch.bfloat16: TensorProto.BFLOAT16}
    kind = types[weight.dtype]
    rows = weight.t().contiguous().view(torch.uint8).numpy().tobytes()
    constant = helper.make_tensor("weight", kind, [weight.shape[1], weight.shape[0]], rows, raw=True)
    ends = [helper.make_tensor_value_info(name, kind, None) for name in ("input", "output")]
    node = helper.make_node("MatMul", ["input", "weight"], ["output"], name=NODE)
    graph = helper.make_graph([node], "product", ends[:1], ends[1:], [constant])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)])


def tensor(constant: onnx.TensorProto) -> Tensor:
    """Converts a graph's constant to torch."""
    values = numpy_helper.to_array(constant).copy()
    if constant.data_type == TensorProto.BFLOAT16:  # numpy gets this type from another package
        return torch.from_numpy(values.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(values)
