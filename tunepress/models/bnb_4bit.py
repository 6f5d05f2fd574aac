"""The base model in 4 bits, as bitsandbytes holds it while a QLoRA adapter is trained, and the same weights as floats again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from tunepress.config.adapter import Adapter
from tunepress.core.errors import InputError
from tunepress.core.files import write_json

FILE_NAME = "quantization.json"  # beside the adapter's weights: what it was trained on


@dataclass(frozen=True)
class Quantization:
    """What the base model's linear weights were rounded to.

    Attributes:
        bnb_4bit_quant_type: nf4 or fp4.
        bnb_4bit_use_double_quant: whether the scales are quantized too.
        compensated: whether the adapter's first weights make up for the rounding, so that it fits no other weights.
        dtype: torch's name of the type that the weights had before.
    """

    bnb_4bit_quant_type: str
    bnb_4bit_use_double_quant: bool
    compensated: bool
    dtype: str

    @classmethod
    def of(cls, adapter: Adapter, bf16: bool) -> "Quantization | None":
        """What `adapter` is trained on; None: the base model's own weights."""
        if not adapter.method.quantized:
            return None
        double = adapter.bnb_4bit_use_double_quant
        return cls(
            bnb_4bit_quant_type=adapter.bnb_4bit_quant_type or "nf4",
            bnb_4bit_use_double_quant=double is not False,
            compensated=adapter.init_lora_weights == "loftq",
            dtype="bfloat16" if bf16 else "float32",
        )

    def save(self, folder: Path) -> None:
        """Writes it to an adapter's folder."""
        write_json(folder / FILE_NAME, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Quantization | None":
        """What `save` wrote to an adapter's folder, None where it wrote nothing.

        Raises:
            InputError: the file is not one.
        """
        path = folder / FILE_NAME
        if not path.exists():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: does not say how the base model was quantized ({error}); train again") from error

    def config(self, compute_dtype: torch.dtype) -> BitsAndBytesConfig:
        """The argument for from_pretrained.

        The quantized weights are stored in elements of the compute type, which is what FSDP wants to spread them.
        """
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=self.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=compute_dtype,
            bnb_4bit_quant_storage=compute_dtype,
        )

    @torch.no_grad()
    def round_trip(self, weight: torch.Tensor) -> torch.Tensor:
        """A float weight quantized and dequantized again.

        What is left is, bit for bit, the weight that training multiplied with.
        """
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        packed, state = quantize_4bit(
            weight.to(getattr(torch, self.dtype)),
            compress_statistics=self.bnb_4bit_use_double_quant,
            quant_type=self.bnb_4bit_quant_type,
        )
        return dequantize_4bit(packed, state).to(weight.dtype)


def quantized_weight_names(model: PreTrainedModel) -> list[str]:
    """Names of the weights that are quantized: those of all linear layers but the head, which transformers leaves alone."""
    head = model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head]
    return [f"{name}.weight" for name in linear]


def disable_repacking(model: torch.nn.Module) -> None:
    """Keeps bitsandbytes from repacking a model's 4-bit weights when it is first evaluated.

    On a CPU with AVX512-BF16 it would (0.50, Linear4bit.forward), and training could not go on: no gradient passes its
    product of repacked weights, their scales are rounded to bfloat16 for good, and DoRA misreads them.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  (no attribute that torch's types know)
