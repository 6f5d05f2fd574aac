"""What the installed builder of onnxruntime-genai knows: targets and options, and what of them can be built here.

Its help text and its code are the only places that list them. They are parsed and not imported: an import takes five
seconds (torch), and a configuration is composed in less than one.
"""

import ast
import json
import re
import textwrap
from dataclasses import fields
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunepress.config.build import GPTQ, SAMPLES, Build
from tunepress.core.errors import InputError
from tunepress.core.keys import unknown_key
from tunepress.models import architectures

FORMER_PREFIX = "int4_"  # of the options of quantization; the builder's help calls them aliases, its code reads none of them
OWN_BLOCK_SIZE = 32  # what the builder takes where none is given
LISTED_AS = {"trt-rtx": "NvTensorRtRtx"}  # two names of one provider: in the builder's messages, and on its command line
# Listed by the builder, whose graph for it has no cache: an Attention without the outputs present.*.key, in every architecture.
BROKEN = {("fp32", "cuda"): "set build.precision to bf16 or fp16, or build fp32 for cpu"}

DRAFTER = "a drafter is a model of its own, which no stage makes or watches"
HALF = "evaluate, compare and predict want a whole model"
UNFIT = {
    "adapter_path": "the adapter is in the weights, where merge has put it",
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
    "filename": "a model's folder has the name here, its file is always model.onnx",
    "hf_remote": "the merged model is a folder on this disk, and no code of a model's repository runs",
    "hf_token": "the merged model is a folder on this disk, and nothing is fetched",
    "num_hidden_layers": "it leaves layers of the model out, for the builder's own tests",
    "windowed_kv_cache": "evaluate goes back in the cache, which a cache as short as the window does not allow",
}


def refusal(build: Build) -> str | None:
    """Why the builder cannot make this, in one line that says what to write instead; None if it can."""
    said = [refused_target(build.precision, build.execution_provider)]
    said += [refused_option(name, value) for name, value in build.extra_options.items()]
    said += [refused_samples(build)]
    if build.block_size is not None and build.block_size not in block_sizes():
        said.append(f"build.block_size: {build.block_size} is none of {', '.join(map(str, block_sizes()))}")
    return next((one for one in said if one), None)


def refused_target(precision: str, execution_provider: str) -> str | None:
    """Why there is no build for this pair."""
    if execution_provider in LISTED_AS:
        return f"build.execution_provider: {execution_provider} is called {LISTED_AS[execution_provider]} on its command line"
    if (precision, execution_provider) in BROKEN:
        cure = BROKEN[precision, execution_provider]
        return f"build.precision: the builder writes a broken graph in {precision} for {execution_provider}; {cure}"
    known = targets()
    if precision in known.get(execution_provider, []):
        return None
    listed = "; ".join(f"{provider}: {', '.join(precisions)}" for provider, precisions in known.items())
    key = "precision" if execution_provider in known else "execution_provider"
    return f"build.{key}: the builder has no {precision} for {execution_provider}, only {listed}"


def refused_samples(build: Build) -> str | None:
    """Why gptq cannot look at rows, or nothing else can."""
    if build.algo_config != GPTQ:
        return (
            None if build.n_samples is None else f"build.n_samples: only algo_config={GPTQ} looks at rows; set that, or null here"
        )
    if build.precision not in ("int4", "int8"):
        return f"build.algo_config: {build.precision} has nothing to round; use null"
    if build.n_samples is not None and build.n_samples < 1:
        return f"build.n_samples: {build.n_samples} rows say nothing; 1 or more, or null for {SAMPLES}"
    return None


def refused_option(name: str, value: Any) -> str | None:
    """Why an extra option cannot be given."""
    key, known, own = f"build.extra_options.{name}", options(), {field.name for field in fields(Build)}
    if name in own:
        return f"{key}: is a key of its own; set build.{name}"
    present = name.removeprefix(FORMER_PREFIX)
    if name not in known and present in known:
        return f"{key}: is now called {present}; set {f'build.{present}' if present in own else f'build.extra_options.{present}'}"
    if name not in known:
        return unknown_key(key, sorted(known.keys() - own - UNFIT.keys() - deprecated().keys()))
    if name in deprecated():
        return f"{key}: is now called {deprecated()[name]}; set build.extra_options.{deprecated()[name]}"
    if name in UNFIT:
        return f"{key}: {UNFIT[name]}; leave it out"
    if not isinstance(value, str | int | float):
        return f"{key}: {value!r} is no single value; write it as on the builder's command line, such as MatMul/Gather or 1,2"
    if name == "mtp_quant_config" and not str(value).lstrip().startswith("{"):
        return f"{key}: {value!r} is no JSON object; write the object itself, since a file would be watched by no stage"
    return None


def key_value_pairs(build: Build) -> list[str]:
    """The options of a recipe as the builder reads them, those without a value left out.

    What gptq leaves to the builder, the head and the embeddings tied to it, is rounded by k_quant: by "default" the builder
    (0.18) gives a tied head in 8 bits another name than the one its embeddings look for, and the model does not load.
    """
    named = {
        "algo_config": "k_quant" if build.algo_config == GPTQ else build.algo_config,
        "block_size": build.block_size,
        "accuracy_level": build.accuracy_level,
        "is_symmetric": build.is_symmetric,
        "matmul_mixed_precision": build.matmul_mixed_precision,
        "nodes_to_exclude": ",".join(build.nodes_to_exclude) or None,
    }
    return [f"{name}={value}" for name, value in (named | build.extra_options).items() if value is not None]


def check_model(build: Build, folder: Path) -> None:
    """Looks whether a recipe fits a model folder, before its weights are read.

    Raises:
        InputError: the architecture is not supported, or the provider has no such blocks in it.
    """
    architectures.check(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if build.precision == "int4":
        check_blocks(build, widths(config | config.get("text_config", {})), folder)


def check_blocks(build: Build, products: dict[str, int], folder: Path) -> None:
    """Raises InputError if the weights of a product do not come in blocks as the provider or the quantizer wants them."""
    size = build.block_size or OWN_BLOCK_SIZE
    for name, width in products.items():
        reason = unfit(build, width, size)
        if reason:
            fitting = [str(one) for one in block_sizes() if not any(unfit(build, other, one) for other in products.values())]
            cure = f"set it to {' or '.join(fitting)}" if fitting else "no size fits here"
            raise InputError(f"build.block_size: {size} does not fit {name}, {width} in {folder}: {reason}; {cure}")


def unfit(build: Build, width: int, block_size: int) -> str | None:
    """Why products of this width cannot have int4 weights in blocks of this size; None if they can.

    The quantizer fills a last block up with zeros, and the kernels for CPU, CUDA and WebGPU know that it does.
    """
    if build.execution_provider == "dml" and width % block_size:  # DML_DEQUANTIZE_OPERATOR_DESC wants sizes that divide
        return "dml wants full blocks, so that it divides the width"
    algorithm = build.algo_config or "default"
    zero_points = algorithm.startswith("k_quant") or (algorithm.startswith("rtn") and build.is_symmetric is False)
    if zero_points and -(-width // block_size) % 2:  # they are packed in pairs, and not row by row (weight_only.py)
        return f"{algorithm} wants an even number of blocks (default takes any)"
    return None


def widths(config: dict[str, Any]) -> dict[str, int]:
    """How many weights each output of a product has, by the names that the model's configuration gives them."""
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    head_dim = config.get("head_dim") or (hidden // heads if hidden and heads else None)
    named = {
        "hidden_size": hidden,
        "intermediate_size": config.get("intermediate_size"),
        "num_attention_heads x head_dim": heads * head_dim if heads and head_dim else None,
    }
    return {name: width for name, width in named.items() if width}


@cache
def targets() -> dict[str, list[str]]:
    """The precisions of each execution provider, as the builder lists them."""
    before = "Valid precision + execution provider combinations are: "
    listed = next(text for text in strings(function("get_args")) if text.startswith(before)).removeprefix(before)
    names = {name.lower(): name for name in strings(argument("--execution_provider")["choices"])} | LISTED_AS
    found: dict[str, list[str]] = {}
    for pair in listed.lower().split(","):
        precision, provider = pair.split()
        found.setdefault(names[provider], []).append(precision)
    return found


@cache
def options() -> dict[str, str]:
    """The extra options by name, each with the first line of its help."""
    (described,) = strings(argument("--extra_options")["help"])
    return dict(re.findall(r"^ {4}(\w+) = (.*)$", textwrap.dedent(described), flags=re.MULTILINE))


@cache
def deprecated() -> dict[str, str]:
    """Former options and what each is called now."""
    present = {name: re.match(r"\[DEPRECATED\] Use '(\w+)=", described) for name, described in options().items()}
    return {name: found[1] for name, found in present.items() if found}


@cache
def block_sizes() -> list[int]:
    """How many weights may share a scale: those that the builder's help names."""
    return [int(size) for size in options()["block_size"].partition(":")[0].split("/")]


@cache
def source() -> ast.Module:
    """The builder's main module.

    Raises:
        InputError: it is not installed.
    """
    package = find_spec("onnxruntime_genai")
    if package is None or package.origin is None:
        raise InputError("onnxruntime-genai is not installed here; run `make setup`")
    return ast.parse(Path(package.origin).with_name("models").joinpath("builder.py").read_text(encoding="utf-8"))


def function(name: str) -> ast.FunctionDef:
    """A function of the builder's main module."""
    return next(node for node in source().body if isinstance(node, ast.FunctionDef) and node.name == name)


def argument(flag: str) -> dict[str, ast.expr]:
    """How the builder declares a flag of its command line."""
    calls = [node for node in ast.walk(function("get_args")) if isinstance(node, ast.Call)]
    (declared,) = (call for call in calls if flag in [one.value for one in call.args if isinstance(one, ast.Constant)])
    return {keyword.arg: keyword.value for keyword in declared.keywords if keyword.arg}


def strings(node: ast.AST) -> list[str]:
    """All texts in a piece of code."""
    return [one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
