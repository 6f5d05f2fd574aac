"""Registers the schema and the resolver that conf/config.yaml uses, in whichever process composes it.

Hydra imports every module of a `hydra_plugins` package, DVC's own process included (`hydra.plugins_path` in
.dvc/config), so a wrong key or type fails in `dvc exp run -S` before any stage starts.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from stages.lib.schema.adapter import Adapter
from stages.lib.schema.base_model import BaseModel
from stages.lib.schema.build import Build
from stages.lib.schema.data import Data
from stages.lib.schema.evaluate import Evaluate
from stages.lib.schema.merge import Merge
from stages.lib.schema.report import Report
from stages.lib.schema.train import Train


@dataclass
class Tunepress:
    """The whole of params.yaml."""

    base_model: BaseModel
    data: Data
    adapter: Adapter
    train: Train
    merge: Merge
    build: Build
    evaluate: Evaluate
    report: Report
    seed: int


def tracked(otherwise: str, *paths: str | Sequence[str] | None) -> str:
    """The one path that covers `paths`, for a dependency in dvc.yaml, whose list of dependencies has a fixed length.

    A single path is itself; several are their closest common folder; none is `otherwise`.
    """
    flat: list[str] = []
    for path in paths:
        flat += [] if path is None else [path] if isinstance(path, str) else list(path)
    return os.path.commonpath(flat) if flat else otherwise


ConfigStore.instance().store(name="tunepress", node=Tunepress)
OmegaConf.register_new_resolver("tracked", tracked, replace=True)
