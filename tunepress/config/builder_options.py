"""What the installed builder of onnxruntime-genai offers, and which of its options cannot be used here.

builder_options.json is written by `python -m tools.cli.builder_options` from the builder's code, whose import takes five seconds;
a test compares it with the installed wheel. Composing a configuration reads the file.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
FORMER_PREFIX = "int4_"  # of the options of quantization; the builder's help calls them aliases, its code reads none of them
LISTED_AS = {"trt-rtx": "NvTensorRtRtx"}  # two names of one provider: in the builder's messages, and on its command line
# Listed by the builder, whose graph for it has no cache: an Attention without the outputs present.*.key, in every architecture.
BROKEN = {("fp32", "cuda"): "set build.precision to bf16 or fp16, or build fp32 for cpu"}

DRAFTER = "a drafter is a model of its own, which no stage makes or watches"
HALF = "evaluate, compare and predict need a whole model"
UNFIT = {
    "adapter_path": "the adapter is in the weights already, since merge added it",
    "config_only": "there would be no model",
    "dflash2_fuse_gate_up": DRAFTER,
    "dflash2_fuse_qkv": DRAFTER,
    "dflash2_num_draft_tokens": DRAFTER,
    "dflash2_path": DRAFTER,
    "dflash2_precision": DRAFTER,
    "dspark_num_draft_tokens": DRAFTER,
    "dspark_path": DRAFTER,
    "dspark_top_k": DRAFTER,
    "exclude_embeds": HALF,
    "exclude_lm_head": HALF,
    "filename": "the folder has the model's name here, and the file is always model.onnx",
    "hf_remote": "the merged model is a folder on this disk, and no code of a model's repository runs",
    "hf_token": "the merged model is a folder on this disk, and nothing is fetched",
    "num_hidden_layers": "it leaves layers of the model out, for the builder's own tests",
    "windowed_kv_cache": "evaluate goes back in the cache, which a cache as short as the window does not allow",
}


@cache
def _content() -> Any:
    return json.loads(FILE.read_text(encoding="utf-8"))


def targets() -> dict[str, list[str]]:
    """The precisions of each execution provider."""
    return dict(_content()["targets"])


def options() -> dict[str, str]:
    """The extra options by name, each with the first line of the builder's help."""
    return dict(_content()["options"])


def deprecated() -> dict[str, str]:
    """Former options, each with its present name."""
    return dict(_content()["deprecated"])


def block_sizes() -> list[int]:
    """How many weights may share a scale."""
    return list(_content()["block_sizes"])
