"""`build`: what onnxruntime-genai's builder makes of the merged model, in its words."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from tunepress.config.adapter import Adapter, Method
from tunepress.config.merge import Merge, MergeBase

GPTQ = "gptq"  # the algo_config that is not the builder's
SAMPLES = 128  # rows that the literature of GPTQ looks at (Frantar et al. 2022, section 4)
# Tokens that gptq looks at, at most: five times what 128 of the default rows have, and twice the columns of Phi-3-mini's widest
# matrix. In Phi-3-mini's shape 128 rows of 4,096 tokens would take 32 times as long, and 12.9 GB of hidden states instead of 0.4.
CALIBRATION_TOKENS = 16_384


class Adapters(Enum):
    """Whether the adapter is in the model's weights, or in a file of its own that is activated while the model runs."""

    merged = "merged"
    separate = "separate"


@dataclass
class Build:
    """Arguments and extra options of the builder of the same names; null leaves the choice to the builder.

    `algo_config` has one value more than the builder knows, gptq, which rounds by the training rows.
    """

    precision: str
    execution_provider: str
    algo_config: str | None
    block_size: int | None
    accuracy_level: int | None
    is_symmetric: bool | None
    matmul_mixed_precision: str | None
    nodes_to_exclude: list[str]
    adapters: Adapters
    n_samples: int | None  # training rows that gptq looks at, at most (and CALIBRATION_TOKENS of them); null for SAMPLES
    extra_options: dict[str, Any]  # all others that the installed builder knows, see tunepress/config/builder_options.py


def refusal(build: Build, adapter: Adapter, merge: Merge) -> str | None:
    """Why these values cannot go together, in one line that says what to do; None if they can."""
    if build.adapters is Adapters.merged:
        return None
    if adapter.method is Method.none:
        return "build.adapters: separate keeps an adapter apart, and adapter.method is none; use merged"
    if adapter.method.use_dora:
        other = adapter.method.value.replace("dora", "lora")
        return (
            f"build.adapters: separate keeps two factors apart, {adapter.method.value} has sizes too; use {other}, or merged here"
        )
    if adapter.init_lora_weights == "loftq":
        return "build.adapters: an adapter initialised by loftq fits the rounded weights only; use merged"
    if adapter.method.quantized and merge.base is MergeBase.dequantized:
        return on_rounded_weights()
    return None


def on_rounded_weights() -> str:
    """Why an adapter cannot be kept apart from the weights that QLoRA has rounded."""
    return "build.adapters: separate shares the base model's own weights; set merge.base=original, or merged here"
