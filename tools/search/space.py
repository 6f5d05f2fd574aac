"""The search space: lists of values, ranges of numbers, and their form in Hydra's overrides."""

import re
from dataclasses import dataclass
from typing import Any, cast

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from optuna.trial import BaseTrial, FixedTrial

from tunepress.config.params import Params, key_problem
from tunepress.core.errors import InputError, one_line
from tunepress.core.keys import unknown_key
from tunepress.core.params import CONF

PLAIN = re.compile(r"(?!(?:null|true|false|inf|nan)$)[A-Za-z_/][\w./+-]*", re.IGNORECASE)


@dataclass
class Values:
    """A list of values as text in Hydra's overrides, since Optuna only stores simple types."""

    choices: list[str]

    def texts(self) -> list[str]:
        return self.choices

    def suggest(self, trial: BaseTrial, key: str) -> None:
        trial.suggest_categorical(key, self.choices)


@dataclass
class Range:
    """Numbers from low to high, inclusive; with `log`, each order of magnitude is equally likely."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @property
    def integers(self) -> bool:
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def texts(self) -> list[str]:
        """All values, or none if there is no step."""
        if not self.step:
            return []
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        numbers = [self.low + index * self.step for index in range(count)]
        return [text_of(int(number) if self.integers else float(f"{number:.10g}")) for number in numbers]

    def suggest(self, trial: BaseTrial, key: str) -> None:
        """Raises ValueError if low, high, log and step contradict each other."""
        if self.integers:
            trial.suggest_int(key, int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        else:
            trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)


Space = dict[str, Values | Range]


def parse(key: str, values: Any) -> Values | Range:
    """Parses an entry of `space`.

    Raises:
        InputError: an unknown key or group, a value of the wrong type, or an invalid range.
    """
    dimension = range_of(key, values) if isinstance(values, dict) else values_of(key, values)
    name = key.lstrip("+")
    if (CONF / name).is_dir():
        check_group(key, name, values)
        return dimension
    if problem := key_problem(name):
        raise InputError(f"space: {problem}")
    for value in [values["low"], values["high"]] if isinstance(values, dict) else values:
        check_type(name, value)
    return dimension


def values_of(key: str, values: Any) -> Values:
    if not isinstance(values, list) or not values:
        raise InputError(f"space.{key}: must be a list of values, or low and high")
    if key.lstrip("+") == "data.text_template":  # in whose overrides a backslash escapes
        values = [value.replace("\\", "\\\\") if isinstance(value, str) else value for value in values]
    return Values(list(dict.fromkeys(text_of(value) for value in values)))


def range_of(key: str, values: dict[str, Any]) -> Range:
    """A range, which Optuna checks."""
    try:
        checked = OmegaConf.merge(OmegaConf.structured(Range), values)
        if missing := sorted(OmegaConf.missing_keys(checked)):
            raise InputError(f"space.{key}.{missing[0]} has no value")
        result = cast(Range, OmegaConf.to_object(checked))
        result.suggest(FixedTrial({key: result.low}), key)
    except ConfigKeyError as error:
        raise InputError(unknown_key(f"space.{key}.{error.full_key}", ["low", "high", "log", "step"])) from error
    except (OmegaConfBaseException, ValueError) as error:
        raise InputError(f"space.{key}: {one_line(error)}") from error
    return result


def check_group(key: str, group: str, values: Any) -> None:
    """Raises InputError if the Hydra group does not have a choice."""
    choices = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    for value in values if isinstance(values, list) else [values]:
        if value not in choices:
            raise InputError(f"space.{key}: {group} must be one of {', '.join(choices)}, got {text_of(value)}")


def check_type(key: str, value: Any) -> None:
    """Raises InputError if a value does not match the schema of params.yaml."""
    try:
        config = OmegaConf.create()
        OmegaConf.update(config, key, value)
        OmegaConf.merge(OmegaConf.structured(Params), config)
    except OmegaConfBaseException as error:
        raise InputError(f"space.{key}: {one_line(error)}") from error


def text_of(value: Any) -> str:
    """A value as in a Hydra override."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(text_of, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{text_of(part)}" for name, part in value.items()) + "}"
    if isinstance(value, str) and not PLAIN.fullmatch(value):
        return QuotedString(value, Quote.single).with_quotes()
    return str(value)


def overrides_of(choices: dict[str, Any]) -> list[str]:
    """The choices of a trial as Hydra overrides."""
    return [f"{key}={value if isinstance(value, str) else text_of(value)}" for key, value in choices.items()]
