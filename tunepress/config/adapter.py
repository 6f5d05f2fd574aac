"""`adapter`: what is trained, in peft's words."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Method(Enum):
    """Kinds of adapters. A q before the name: on a base model that bitsandbytes holds in 4 bits. None: nothing is trained."""

    lora = "lora"
    rslora = "rslora"
    dora = "dora"
    qlora = "qlora"
    qdora = "qdora"
    none = "none"

    @property
    def quantized(self) -> bool:
        """Whether the base model is held in 4 bits while the adapter is trained."""
        return self in (Method.qlora, Method.qdora)

    @property
    def use_dora(self) -> bool:
        """Whether the size of each weight row is learned apart from its direction."""
        return self in (Method.dora, Method.qdora)


@dataclass
class Adapter:
    """Fields of peft's LoraConfig, and of transformers' BitsAndBytesConfig, of the same names."""

    method: Method
    r: int
    lora_alpha: int
    lora_dropout: float  # share of the adapter's inputs that training drops
    target_modules: Any  # "all-linear", a regular expression, or a list of module names
    init_lora_weights: Any  # true or one of INITIALISATIONS
    # of the quantized methods alone; null: nf4, true, and bfloat16 under train.bf16 or else float32
    bnb_4bit_quant_type: str | None
    bnb_4bit_use_double_quant: bool | None
    bnb_4bit_compute_dtype: str | None


INITIALISATIONS = ("gaussian", "orthogonal", "olora", "pissa", "pissa_niter_<n>", "loftq")
QUANT_TYPES = ("nf4", "fp4")
COMPUTE_DTYPES = ("float32", "bfloat16", "float16")


def refusal(adapter: Adapter) -> str | None:
    """Why these values cannot go together, in one line that says what to do; None if they can."""
    name, init = adapter.method.value, adapter.init_lora_weights
    if init is not True and not is_initialisation(init):
        return f"adapter.init_lora_weights: {init!r} is none of true, {', '.join(INITIALISATIONS)}"
    if init == "loftq" and not adapter.method.quantized:
        return f"adapter.init_lora_weights: loftq makes up for quantization, and adapter.method={name} has none; use qlora"
    if moves_the_base(init) and adapter.method.quantized:
        return f"adapter.init_lora_weights: {init} wants float weights, {name} holds them in 4 bits; use loftq, or lora"
    if moves_the_base(init) and adapter.method.use_dora:  # peft's conversion forgets the sizes that DoRA learned
        return f"adapter.init_lora_weights: {init} cannot be written as an adapter of {name}; use lora or rslora, or true here"
    if init == "orthogonal" and adapter.r % 2:
        return f"adapter.r: init_lora_weights=orthogonal wants an even r, not {adapter.r}"
    given = [field for field in vars(adapter) if field.startswith("bnb_") and getattr(adapter, field) is not None]
    if given and not adapter.method.quantized:
        return f"adapter.{given[0]}: adapter.method={name} quantizes nothing; use qlora or qdora, or null here"
    if adapter.bnb_4bit_quant_type not in (None, *QUANT_TYPES):
        return f"adapter.bnb_4bit_quant_type: {adapter.bnb_4bit_quant_type!r} is none of {', '.join(QUANT_TYPES)}"
    if adapter.bnb_4bit_compute_dtype not in (None, *COMPUTE_DTYPES):
        return f"adapter.bnb_4bit_compute_dtype: {adapter.bnb_4bit_compute_dtype!r} is none of {', '.join(COMPUTE_DTYPES)}"
    if not names_modules(adapter.target_modules):
        return f"adapter.target_modules: {adapter.target_modules!r} is no list of names, regular expression or all-linear"
    if adapter.r < 1:
        return f"adapter.r: {adapter.r} is no rank; 1 or more"
    if adapter.lora_alpha < 1:
        return f"adapter.lora_alpha: with {adapter.lora_alpha} nothing is learned; 1 or more"
    if not 0 <= adapter.lora_dropout < 1:
        return f"adapter.lora_dropout: {adapter.lora_dropout} is no share; from 0 to below 1"
    return None


def is_initialisation(name: Any) -> bool:
    """Whether `name` is one of INITIALISATIONS."""
    return isinstance(name, str) and re.fullmatch("|".join(INITIALISATIONS).replace("<n>", r"\d+"), name) is not None


def names_modules(given: Any) -> bool:
    """Whether `given` is one of the ways to name modules."""
    if isinstance(given, str):
        try:
            return bool(re.compile(given).pattern)
        except re.error:
            return False
    return isinstance(given, list | tuple) and bool(given) and all(isinstance(name, str) and name for name in given)


def moves_the_base(init: Any) -> bool:
    """Whether an initialisation takes the adapter's first value out of the base model's weights."""
    return init == "olora" or str(init).startswith("pissa")
