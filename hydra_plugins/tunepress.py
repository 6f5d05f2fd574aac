"""Registers the schema and the resolver that conf/config.yaml uses, in whichever process composes it.

Hydra imports every module of a `hydra_plugins` package, DVC's own process included (`hydra.plugins_path` in
.dvc/config), so a wrong key or type fails in `dvc exp run -S` before any stage starts.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, cast, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

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


def tracked(otherwise: str, *paths: str | Sequence[str] | None, _root_: DictConfig) -> str:
    """The one path that covers `paths`, for a dependency in dvc.yaml, whose list of dependencies has a fixed length.

    A single path is itself; several are their closest common folder; none is `otherwise`. Every composition comes by
    here, so here is also where a key that the schema does not know is refused: Hydra's `+key=value` adds any.
    """
    refuse_unknown(_root_)
    flat: list[str] = []
    for path in paths:
        flat += [] if path is None else [path] if isinstance(path, str) else list(path)
    return os.path.commonpath(flat) if flat else otherwise


def refuse_unknown(root: DictConfig) -> None:
    """Raises ValueError for a key that is in no dataclass of the schema."""
    tree = cast(dict[str, Any], OmegaConf.to_container(root, resolve=False))
    sections = get_type_hints(Tunepress)
    for name in tree:
        if name not in sections:
            raise ValueError(f"unknown key {name}; known: {', '.join(sections)}")
        known = get_type_hints(sections[name]) if is_dataclass(sections[name]) else {}
        for key in tree[name] if known else ():
            if key not in known:
                raise ValueError(f"unknown key {name}.{key}; known: {', '.join(known)}")


ConfigStore.instance().store(name="tunepress", node=Tunepress)
OmegaConf.register_new_resolver("tracked", tracked, replace=True)
