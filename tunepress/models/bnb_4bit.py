"""The 4-bit base model of QLoRA: bitsandbytes' quantization during training, and the same weights dequantized."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from tunepress.config.adapter import Adapter
from tunepress.core.errors import InputError
from tunepress.core.files import write_json

FILE_NAME = "quantization.json"  # next to the adapter's weights: how the base model was quantized


@dataclass(frozen=True)
class Quantization:
    """How the weights of the base model's linear layers were quantized.

    Attributes:
        bnb_4bit_quant_type: nf4 or fp4.
        bnb_4bit_use_double_quant: whether the scales are quantized too.
        compensated: whether the adapter's initial weights compensate for the rounding, so that it does not fit other weights.
        dtype: torch's name of the weights' type before quantization.
    """

    bnb_4bit_quant_type: str
    bnb_4bit_use_double_quant: bool
    compensated: bool
    dtype: str

    @classmethod
    def of(cls, adapter: Adapter, bf16: bool) -> "Quantization | None":
        """The quantization with which an adapter is trained; None if the base model is not quantized.

        Of an adapter that was trained elsewhere, what is null has the default of bitsandbytes and the usual type of weights.
        """
        if not adapter.method.quantized and not (adapter.method.brought and adapter.bnb_4bit_quant_type):
            return None
        double = adapter.bnb_4bit_use_double_quant
        if adapter.method.brought:
            dtype = adapter.bnb_4bit_compute_dtype or "bfloat16"
            return cls(adapter.bnb_4bit_quant_type or "", bool(double), compensated=False, dtype=dtype)
        return cls(
            bnb_4bit_quant_type=adapter.bnb_4bit_quant_type or "nf4",
            bnb_4bit_use_double_quant=double is not False,
            compensated=adapter.init_lora_weights == "loftq",
            dtype="bfloat16" if bf16 else "float32",
        )

    def save(self, folder: Path) -> None:
        """Writes quantization.json to an adapter's folder."""
        write_json(folder / FILE_NAME, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Quantization | None":
        """Reads quantization.json from an adapter's folder; None if it does not exist.

        Raises:
            InputError: the file is not valid.
        """
        path = folder / FILE_NAME
        if not path.exists():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: does not say how the base model was quantized ({error}); train again") from error

    def config(self, compute_dtype: torch.dtype) -> BitsAndBytesConfig:
        """The argument quantization_config of from_pretrained.

        The quantized weights are stored as elements of the compute type, which FSDP needs to shard them.
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
        """Quantizes a weight and dequantizes it again.

        The result is bit-identical to the weight with which training multiplied.
        """
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        packed, state = quantize_4bit(
            weight.to(getattr(torch, self.dtype)),
            compress_statistics=self.bnb_4bit_use_double_quant,
            quant_type=self.bnb_4bit_quant_type,
        )
        return dequantize_4bit(packed, state).to(weight.dtype)


def quantized_weight_names(model: PreTrainedModel) -> list[str]:
    """Names of the weights that are quantized: all linear layers except the head, as in transformers."""
    head = model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head]
    return [f"{name}.weight" for name in linear]


def disable_repacking(model: torch.nn.Module) -> None:
    """Prevents bitsandbytes from repacking a model's 4-bit weights at its first evaluation.

    It does so on a CPU with AVX512-BF16 (0.50, Linear4bit.forward), after which training cannot continue: no gradient passes
    through the product with repacked weights, their scales stay rounded to bfloat16, and DoRA misreads them.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  (torch's types do not know the attribute)
