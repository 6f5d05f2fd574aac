"""Writes quantized weights in the layout of Olive's checkpoints, which onnxruntime-genai's builder reads.

The builder itself loads the whole model in float32 before it rounds the first weight: 21.5 GB for 3.8 billion parameters. For a
checkpoint that is already quantized it needs a few bytes for each weight, and this one is written layer by layer.
"""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoConfig

from stages.build.quantize.blocks import QuantizedMatrix
from tunepress.models.shards import Shards

# Architectures whose graphs from such a checkpoint were compared with the builder's own. Their weights are either matrices of the
# decoder's layers with these names, or not quantized.
ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Phi3ForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
LAYER = re.compile(r"model\.layers\.(\d+)\.")
MATRIX = re.compile(r"(model\.layers\.\d+\.(?:self_attn|mlp)\.\w+_proj)\.weight")


def parts(module: str, config: Any) -> dict[str, int]:
    """The modules that a module is for the builder, with the rows of each: a fused module is several.

    They are written separately, because the builder's loader (0.18, loaders/base.py) splits the zero points of fused modules
    in the wrong place.
    """
    layer, _, name = module.rpartition(".")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    queries, keys = config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim
    fused = {
        "qkv_proj": {"q_proj": queries, "k_proj": keys, "v_proj": keys},
        "gate_up_proj": {"gate_proj": config.intermediate_size, "up_proj": config.intermediate_size},
    }
    return {f"{layer}.{part}": rows for part, rows in fused[name].items()} if name in fused else {module: -1}


def split(module: str, weight: Tensor, config: Any) -> dict[str, Tensor]:
    """Splits a weight [out, in] into the weights of `parts`."""
    rows = parts(module, config)
    return {module: weight} if len(rows) == 1 else dict(zip(rows, weight.split(list(rows.values())), strict=True))


class SourceModel:
    """The tensors of a model folder by layer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = AutoConfig.from_pretrained(folder)
        self.tensors = Shards.of(folder).tensors

    def read(self, name: str) -> Tensor:
        return self.tensors[name].read()

    def matrices(self, layer: int) -> dict[str, str]:
        """The names of the weights of a layer that are quantized, by module."""
        matches = {name: MATRIX.fullmatch(name) for name in self.of_layer(layer)}
        return {match[1]: name for name, match in matches.items() if match}

    def column_counts(self) -> dict[str, int]:
        """The number of columns of each matrix of the first layer."""
        return {module: self.tensors[name].shape[1] for module, name in self.matrices(0).items()}

    def of_layer(self, layer: int | None) -> list[str]:
        """The names of a layer's tensors; with None, of the tensors outside the layers."""
        matches = {name: LAYER.match(name) for name in sorted(self.tensors)}
        return [name for name, match in matches.items() if (int(match[1]) if match else None) == layer]


def write_checkpoint(
    source: SourceModel, layers: Iterable[dict[str, QuantizedMatrix]], block_size: int, bits: int, folder: Path
) -> None:
    """Writes a checkpoint.

    Args:
        source: the model.
        layers: for each layer the quantized weights by module, with fused modules split.
        block_size: the block size of all weights.
        bits: the bits of most weights.
        folder: a new folder.
    """
    folder.mkdir(parents=True)
    overrides: dict[str, dict[str, int]] = {}
    for number, quantized in enumerate(layers):
        tensors = {name: source.read(name) for name in source.of_layer(number) if not MATRIX.fullmatch(name)}
        for module, weight in quantized.items():
            tensors |= {f"{module}.qweight": weight.qweight, f"{module}.scales": weight.scales, f"{module}.qzeros": weight.qzeros}
            overrides |= {} if weight.bits == bits else {module: {"bits": weight.bits}}
        write(tensors, folder / f"layer-{number}.safetensors")
    write({name: source.read(name) for name in source.of_layer(None)}, folder / "rest.safetensors")
    for file in source.folder.iterdir():
        if file.is_file() and not file.name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copy(file, folder)
    config = json.loads((source.folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "olive", "bits": bits, "group_size": block_size, "overrides": overrides}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def write(tensors: dict[str, Tensor], file: Path) -> None:
    """Writes tensors; safetensors needs each in its own memory, and the parts of fused ones share theirs."""
    save_file({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}, file)


def drop_neutral_zero_points(folder: Path) -> None:
    """Removes the zero points that are MatMulNBits's default from a built model.

    The builder's loader requires zero points (0.18, builders/base.py, make_packed_matmul_int4_class), and writes accuracy_level
    even if it is 0, as for GPUs; the builder's own rounding writes neither.
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
