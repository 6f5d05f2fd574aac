"""The whole configuration, one field for each group of conf/, and which keys it has."""

from dataclasses import dataclass, is_dataclass
from typing import Any, get_type_hints

from tunepress.config import builder_options
from tunepress.config.adapter import Adapter
from tunepress.config.base_model import BaseModel
from tunepress.config.benchmark import Benchmark
from tunepress.config.build import Build
from tunepress.config.data import Data
from tunepress.config.evaluate import Evaluate
from tunepress.config.gate import Gate
from tunepress.config.merge import Merge
from tunepress.config.report import Report
from tunepress.config.train import Train
from tunepress.core.environment import Environment
from tunepress.core.keys import FORMER, unknown_key


@dataclass
class Params:
    """Every group that a stage can read. A stage names those that it reads in its own `Config`."""

    base_model: BaseModel
    data: Data
    adapter: Adapter
    train: Train
    merge: Merge
    build: Build
    evaluate: Evaluate
    benchmark: Benchmark
    gate: Gate
    report: Report
    environment: Environment
    seed: int


@dataclass
class Dvc:
    """What only dvc.yaml needs, derived in conf/config.yaml: the paths that DVC watches, and which lists of `data` are remote."""

    checked: bool  # by tunepress/config/checks.py
    base_model: str
    adapter: str
    data: list[str]
    build: str
    evaluate: str
    retained: str
    remote: list[str]
    chat_template: str
    json_schema: str
    calibration: str
    collected: str


@dataclass
class Composed(Params):
    """The whole of params.yaml."""

    dvc: Dvc


def key_problem(key: str) -> str | None:
    """Says which key could be meant if `key`, given with its group, is not in the schema; None if it is."""
    if key in FORMER:
        return unknown_key(key, [])
    group: Any = Composed
    names = key.split(".")
    for depth, name in enumerate(names, start=1):
        if not is_dataclass(group):
            return None  # the keys of a dict are free
        fields = get_type_hints(group)
        if name not in fields:
            if group is Build and name in builder_options.options():
                return f"unknown key {key}; use build.extra_options.{name}"
            return unknown_key(".".join(names[:depth]), list(fields))
        group = fields[name]
    return None
