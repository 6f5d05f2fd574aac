"""`adapter`: what is trained, in peft's words."""

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Method(Enum):
    """Kinds of adapters."""

    lora = "lora"


@dataclass
class Adapter:
    """Fields of peft's LoraConfig of the same names."""

    method: Method
    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: Any  # "all-linear", a regular expression, or a list of module names
