"""`build`: what onnxruntime-genai's builder makes of the merged model, in its words."""

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from tunepress.config import builder_options
from tunepress.config.builder_options import BROKEN, FORMER_PREFIX, LISTED_AS, UNFIT
from tunepress.core.keys import unknown_key

# The values of algo_config that are not the builder's.
GPTQ = "gptq"
AUTO = "auto"  # gptq where it can quantize the model, otherwise FALLBACK for int4, and null where that does not fit either
FALLBACK = "k_quant_mixed"
SAMPLES = 128  # rows that the literature of GPTQ looks at (Frantar et al. 2022, section 4)
# Tokens that gptq looks at, at most: five times what 128 of the default rows have, and twice the columns of Phi-3-mini's widest
# matrix. In Phi-3-mini's shape 128 rows of 4,096 tokens would take 32 times as long, and 12.9 GB of hidden states instead of 0.4.
CALIBRATION_TOKENS = 16_384
SEPARATE_ON_ROUNDED_WEIGHTS = (
    "build.adapters: separate shares the base model's own weights; set merge.base=original, or build.adapters=merged"
)


class Adapters(Enum):
    """Whether the adapter is in the model's weights, or in a file of its own that is activated while the model runs."""

    merged = "merged"
    separate = "separate"


@dataclass
class Build:
    """Arguments and extra options of the builder of the same names; null leaves the choice to the builder.

    `algo_config` has two values more than the builder knows: gptq, which rounds by the training rows, and auto.
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


def problem(build: Build) -> str | None:
    """What the builder cannot make of these values, in one line that says what to write instead; None if it can."""
    problems = [target_problem(build.precision, build.execution_provider)]
    problems += [option_problem(name, value) for name, value in build.extra_options.items()]
    problems += [gptq_problem(build)]
    sizes = builder_options.block_sizes()
    if build.block_size is not None and build.block_size not in sizes:
        problems.append(f"build.block_size: must be one of {', '.join(map(str, sizes))}, got {build.block_size}")
    return next(filter(None, problems), None)


def target_problem(precision: str, execution_provider: str) -> str | None:
    if execution_provider in LISTED_AS:
        return f"build.execution_provider: {execution_provider} is called {LISTED_AS[execution_provider]} on its command line"
    if (precision, execution_provider) in BROKEN:
        cure = BROKEN[precision, execution_provider]
        return f"build.precision: the builder writes a broken graph in {precision} for {execution_provider}; {cure}"
    targets = builder_options.targets()
    if precision in targets.get(execution_provider, []):
        return None
    listed = "; ".join(f"{provider}: {', '.join(precisions)}" for provider, precisions in targets.items())
    key = "precision" if execution_provider in targets else "execution_provider"
    return f"build.{key}: the builder has no {precision} for {execution_provider}, only {listed}"


def gptq_problem(build: Build) -> str | None:
    if build.algo_config not in (GPTQ, AUTO):
        return None if build.n_samples is None else f"build.n_samples: only algo_config={GPTQ} reads rows; set that, or null here"
    if build.algo_config == GPTQ and build.precision not in ("int4", "int8"):
        return f"build.algo_config: {build.precision} is not quantized; use null"
    if build.n_samples is not None and build.n_samples < 1:
        return f"build.n_samples: must be at least 1, or null for {SAMPLES}, got {build.n_samples}"
    if build.adapters is Adapters.separate and build.algo_config == GPTQ:
        return (
            "build.adapters: separate shares one model between tasks, and gptq would round it by the rows of one; "
            "use build.algo_config=auto too"
        )
    return None


def option_problem(name: str, value: Any) -> str | None:
    key, known, own = f"build.extra_options.{name}", builder_options.options(), {field.name for field in fields(Build)}
    deprecated = builder_options.deprecated()
    if name in own:
        return f"{key}: is a key of its own; set build.{name}"
    current = name.removeprefix(FORMER_PREFIX)
    if name not in known and current in known:
        return f"{key}: is now called {current}; set {f'build.{current}' if current in own else f'build.extra_options.{current}'}"
    if name not in known:
        return unknown_key(key, sorted(known.keys() - own - UNFIT.keys() - deprecated.keys()))
    if name in deprecated:
        return f"{key}: is now called {deprecated[name]}; set build.extra_options.{deprecated[name]}"
    if name in UNFIT:
        return f"{key}: {UNFIT[name]}; leave it out"
    if not isinstance(value, str | int | float):
        return f"{key}: must be a single value as on the builder's command line, such as MatMul/Gather or 1,2, got {value!r}"
    if name == "mtp_quant_config" and not str(value).lstrip().startswith("{"):
        return f"{key}: must be a JSON object, got {value!r}; a path would name a file that DVC does not watch"
    return None
