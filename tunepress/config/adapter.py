"""`adapter`: what is trained, in peft's words."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Method(Enum):
    """Kinds of adapters. A q before the name: on a base model that bitsandbytes holds in 4 bits. None: nothing is trained.

    With file and hub the adapter was trained elsewhere.
    """

    lora = "lora"
    rslora = "rslora"
    dora = "dora"
    qlora = "qlora"
    qdora = "qdora"
    none = "none"
    file = "file"
    hub = "hub"

    @property
    def brought(self) -> bool:
        """Whether the adapter was trained elsewhere."""
        return self in (Method.file, Method.hub)

    @property
    def quantized(self) -> bool:
        """Whether the base model is held in 4 bits while the adapter is trained."""
        return self in (Method.qlora, Method.qdora)

    @property
    def use_dora(self) -> bool:
        """Whether the magnitude of each weight row is learned apart from its direction."""
        return self in (Method.dora, Method.qdora)


@dataclass
class Adapter:
    """Fields of peft's LoraConfig, and of transformers' BitsAndBytesConfig, of the same names."""

    method: Method
    r: int
    lora_alpha: int
    lora_dropout: float  # share of the adapter's inputs that training drops
    target_modules: Any  # "all-linear", a regular expression, or a list of module names
    init_lora_weights: Any  # true or one of INITIALIZATIONS
    # of the quantized methods only; null: nf4, true, and bfloat16 with train.bf16, otherwise float32. With file and hub they say
    # how the base model was quantized when the adapter was trained; null: it was not, or false, or bfloat16
    bnb_4bit_quant_type: str | None
    bnb_4bit_use_double_quant: bool | None
    bnb_4bit_compute_dtype: str | None
    path: str | None = None  # method: file
    repo_id: str | None = None  # method: hub
    revision: str | None = None  # method: hub


INITIALIZATIONS = ("gaussian", "orthogonal", "olora", "pissa", "pissa_niter_<n>", "loftq")
QUANT_TYPES = ("nf4", "fp4")
COMPUTE_DTYPES = ("float32", "bfloat16", "float16")


def problem(adapter: Adapter) -> str | None:
    """Which of these values cannot go together, in one line that says what to do; None if all can."""
    problems = (source_problem, initialization_problem, quantization_problem, values_problem)
    return next(filter(None, (problem(adapter) for problem in problems)), None)


def source_problem(adapter: Adapter) -> str | None:
    needed = {Method.file: ("path",), Method.hub: ("repo_id", "revision")}.get(adapter.method, ())
    for name in ("path", "repo_id", "revision"):
        value = getattr(adapter, name)
        if name in needed and not value:
            return f"adapter.{name}: must be set for adapter={adapter.method.value}"
        if name not in needed and value is not None:
            return f"adapter.{name}: only adapter={'file' if name == 'path' else 'hub'} reads it; set that, or null here"
    if adapter.revision and not re.fullmatch(r"[0-9a-f]{40}", adapter.revision):
        return f"adapter.revision: must be a commit (40 hex digits), not a branch, which can move, got {adapter.revision!r}"
    return None


def initialization_problem(adapter: Adapter) -> str | None:
    method, init = adapter.method.value, adapter.init_lora_weights
    if init is not True and not is_initialization(init):
        return f"adapter.init_lora_weights: must be true or one of {', '.join(INITIALIZATIONS)}, got {init!r}"
    if init == "loftq" and not adapter.method.quantized:
        return f"adapter.init_lora_weights: loftq compensates for quantization, and adapter.method={method} has none; use qlora"
    if moves_the_base(init) and adapter.method.quantized:
        return f"adapter.init_lora_weights: {init} needs float weights, {method} holds them in 4 bits; use loftq, or lora"
    if moves_the_base(init) and adapter.method.use_dora:  # peft's conversion forgets the magnitudes that DoRA learned
        return f"adapter.init_lora_weights: {init} cannot be saved as an adapter of {method}; use lora or rslora, or true here"
    if init == "orthogonal" and adapter.r % 2:
        return f"adapter.r: must be even with init_lora_weights=orthogonal, got {adapter.r}"
    return None


def quantization_problem(adapter: Adapter) -> str | None:
    set_fields = [field for field in vars(adapter) if field.startswith("bnb_") and getattr(adapter, field) is not None]
    if set_fields and not adapter.method.quantized and not adapter.method.brought:
        method = adapter.method.value
        return f"adapter.{set_fields[0]}: adapter.method={method} does not quantize; use qlora or qdora, or null here"
    if set_fields and adapter.method.brought and not adapter.bnb_4bit_quant_type:
        return f"adapter.{set_fields[0]}: needs adapter.bnb_4bit_quant_type, the quantization that the adapter was trained on"
    if adapter.bnb_4bit_quant_type not in (None, *QUANT_TYPES):
        return f"adapter.bnb_4bit_quant_type: must be one of {', '.join(QUANT_TYPES)}, got {adapter.bnb_4bit_quant_type!r}"
    if adapter.bnb_4bit_compute_dtype not in (None, *COMPUTE_DTYPES):
        return (
            f"adapter.bnb_4bit_compute_dtype: must be one of {', '.join(COMPUTE_DTYPES)}, got {adapter.bnb_4bit_compute_dtype!r}"
        )
    return None


def values_problem(adapter: Adapter) -> str | None:
    if not names_modules(adapter.target_modules):
        return (
            f"adapter.target_modules: must be all-linear, a list of names or a regular expression, got {adapter.target_modules!r}"
        )
    for name in ("r", "lora_alpha"):
        if getattr(adapter, name) < 1:
            return f"adapter.{name}: must be at least 1, got {getattr(adapter, name)}"
    if not 0 <= adapter.lora_dropout < 1:
        return f"adapter.lora_dropout: must be at least 0 and below 1, got {adapter.lora_dropout}"
    return None


def is_initialization(name: Any) -> bool:
    """Whether `name` is one of INITIALIZATIONS."""
    return isinstance(name, str) and re.fullmatch("|".join(INITIALIZATIONS).replace("<n>", r"\d+"), name) is not None


def names_modules(modules: Any) -> bool:
    """Whether `modules` is one of the ways to name modules."""
    if isinstance(modules, str):
        try:
            return bool(re.compile(modules).pattern)
        except re.error:
            return False
    return isinstance(modules, list | tuple) and bool(modules) and all(isinstance(name, str) and name for name in modules)


def moves_the_base(init: Any) -> bool:
    """Whether an initialization takes the adapter's first value out of the base model's weights."""
    return init == "olora" or str(init).startswith("pissa")
