"""Registers the schema and the resolver that conf/config.yaml uses, in whichever process composes it.

Hydra imports every module of a `hydra_plugins` package, DVC's own process included (`hydra.plugins_path` in
.dvc/config), so a wrong key or type fails in `dvc exp run -S` before any stage starts.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, cast, get_type_hints

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from tunepress.config import adapter as adapter_schema
from tunepress.config import build as build_schema
from tunepress.config import builder_options
from tunepress.config import train as train_schema
from tunepress.config.adapter import Adapter
from tunepress.config.base_model import BaseModel
from tunepress.config.benchmark import Benchmark
from tunepress.config.build import GPTQ, Adapters, Build
from tunepress.config.data import Data, Datastore
from tunepress.config.evaluate import Evaluate
from tunepress.config.gate import Gate
from tunepress.config.merge import Merge, MergeBase
from tunepress.config.report import Report
from tunepress.config.train import Train
from tunepress.core.environment import Environment
from tunepress.core.keys import FORMER, unknown_key
from tunepress.remote.addresses import datastore_url, is_remote, url_problem
from tunepress.remote.collected import COLLECTED, remote_lists
from tunepress.text import labels

ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}


@dataclass
class Dvc:
    """What only dvc.yaml reads, derived in conf/config.yaml: paths that DVC watches, and which lists of `data` are remote."""

    base_model: str
    data: str
    build: str
    evaluate: str
    remote: list[str]
    collected: str


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
    benchmark: Benchmark
    gate: Gate
    report: Report
    environment: Environment
    seed: int
    dvc: Dvc


def tracked(otherwise: str, *paths: str | Sequence[str] | None, _root_: DictConfig) -> str:
    """The one path that covers `paths`, for a dependency in dvc.yaml, whose list of dependencies has a fixed length.

    A single path is itself; several are their closest common folder; none is `otherwise`. An address is no path.

    Every composition comes by here, so here is also where a key that the schema does not know is refused (Hydra's
    `+key=value` adds any), and where values are that cannot go together.
    """
    refuse_unknown(_root_)
    refuse_together(_root_)
    flat: list[str] = []
    for path in paths:
        flat += [] if path is None else [path] if isinstance(path, str) else list(path)
    paths_here = [path for path in flat if not is_remote(path)]
    if len(paths_here) < 2:
        return os.path.commonpath(paths_here) if paths_here else otherwise
    common = Path(os.path.commonpath([os.path.abspath(path) for path in paths_here]))  # noqa: PTH100  (a link stays a link)
    if Path.cwd().is_relative_to(common):
        raise ValueError(
            f"{', '.join(paths_here)}: DVC watches one folder that holds them all, and theirs would be the whole project; "
            "put them in a folder of their own, as data/own"
        )
    return str(common) if all(map(os.path.isabs, paths_here)) else os.path.relpath(common)


def local_dataset(files: Sequence[str], path: str | None) -> str | None:
    """data.path where rows are read of it and it is a folder of this machine, None where it is a dataset on a hub."""
    return path if path and not files and Path(path).is_dir() else None


def collected(otherwise: str, remote_lists: Sequence[str]) -> str:
    """The one path that covers the folders in which the files of some lists of `data` are collected."""
    return os.path.commonpath([COLLECTED / name for name in remote_lists]) if remote_lists else otherwise


def datastore_address(datastore: DictConfig) -> str:
    """The address of data.datastore.

    Raises:
        ValueError: one of its keys has no value.
    """
    if missing := sorted(OmegaConf.missing_keys(datastore)):
        raise ValueError(f"{missing[0]}: has no value; set it with -S {missing[0]}=...")
    return datastore_url(cast(Datastore, datastore))


def module_file(function: str | None) -> str | None:
    """The file of a function of this project named package.module.function, None for one that is installed."""
    path = Path(*(function or "").split(".")[:-1]).with_suffix(".py") if function and "." in function else None
    return path.as_posix() if path and path.exists() else None


def refuse_unknown(root: DictConfig) -> None:
    """Raises ValueError for a key that is in no dataclass of the schema."""
    for key in keys(OmegaConf.to_container(root, resolve=False)):
        refuse_unknown_key(key)


def keys(tree: Any, prefix: str = "") -> list[str]:
    """All keys of nested mappings, dotted."""
    if not isinstance(tree, dict):
        return []
    return [f"{prefix}{name}" for name in tree] + [key for name in tree for key in keys(tree[name], f"{prefix}{name}.")]


def refuse_unknown_key(key: str) -> None:
    """Raises ValueError unless the schema knows a key, given with its section."""
    if key in FORMER:
        raise ValueError(unknown_key(key, []))
    known: Any = Tunepress
    names = key.split(".")
    for depth, name in enumerate(names, start=1):
        if not is_dataclass(known):
            return
        fields = get_type_hints(known)
        if name not in fields:
            if known is Build and name in builder_options.options():
                raise ValueError(f"unknown key {key}; use build.extra_options.{name}")
            raise ValueError(unknown_key(".".join(names[:depth]), list(fields)))
        known = fields[name]


def refuse_together(root: DictConfig) -> None:
    """Raises ValueError for values that cannot go together, which no single type shows."""
    refuse_addresses(root.data)
    if problem := labels.labels_problem(root.data.labels or []):
        raise ValueError(problem)
    build = cast(dict[str, Any], OmegaConf.to_container(root.build, resolve=False))
    sections = (root.adapter, root.train, root.merge)
    if "???" in build.values() or any(OmegaConf.missing_keys(section) for section in sections):
        return
    adapter, train, merge = (cast(Any, OmegaConf.to_object(section)) for section in sections)
    wrong = adapter_schema.refusal(adapter) or train_schema.refusal(train)
    wrong = wrong or build_schema.refusal(Build(**build), adapter, merge) or builder_options.refusal(Build(**build))
    if build["adapters"] is Adapters.separate and build["algo_config"] == GPTQ:
        said = "separate shares one model, which gptq would round by the rows of one task; use build=cpu_int4_k_quant_mixed too"
        wrong = wrong or f"build.adapters: {said}"
    if root.adapter.init_lora_weights == "loftq" and root.merge.base is MergeBase.original:
        wrong = wrong or "merge.base: an adapter initialised by loftq fits the rounded weights only; set merge.base=dequantized"
    if wrong:
        raise ValueError(wrong)


def refuse_addresses(data: DictConfig) -> None:
    """Raises ValueError for an address that rows cannot come from."""
    for url in filter(is_remote, [*data.files, *data.test_files]):
        if wrong := url_problem(url):
            raise ValueError(wrong)


def with_line_breaks(override: Override) -> Override:
    r"""A template given on the command line, in which \n is a line break, \t a tab and \\ a backslash, as YAML has them.

    Hydra unescapes nothing but quotes, so that `"a\nb"` would be a backslash and an n. What a YAML file has does not come here.
    """
    value = override.value()
    if override.key_or_group != "data.text_template" or not isinstance(value, str):
        return override
    return replace(override, _value=re.sub(r"\\([nt\\])", lambda found: ESCAPES[found[1]], value))


def apply_overrides(overrides: list[Override], cfg: DictConfig) -> None:
    """Hydra's own, after a look at the keys: it would say that one is not there, and not what was meant."""
    for override in overrides:
        if override.package is None and "@" not in override.key_or_group and not override.key_or_group.startswith("hydra"):
            try:
                refuse_unknown_key(override.key_or_group)
            except ValueError as error:
                raise ConfigCompositionException(str(error)) from error
    HYDRAS_OWN([with_line_breaks(override) for override in overrides], cfg)


# Hydra 1.3 runs this module once more in a process that has imported it (core/plugins.py, exec_module).
HYDRAS_OWN = getattr(ConfigLoaderImpl._apply_overrides_to_config, "hydras_own", ConfigLoaderImpl._apply_overrides_to_config)
vars(apply_overrides)["hydras_own"] = HYDRAS_OWN
ConfigLoaderImpl._apply_overrides_to_config = staticmethod(apply_overrides)  # type: ignore[method-assign]
ConfigStore.instance().store(name="tunepress", node=Tunepress)
OmegaConf.register_new_resolver("tracked", tracked, replace=True)
OmegaConf.register_new_resolver("remote", remote_lists, replace=True)
OmegaConf.register_new_resolver("local_dataset", local_dataset, replace=True)
OmegaConf.register_new_resolver("collected", collected, replace=True)
OmegaConf.register_new_resolver("datastore_address", datastore_address, replace=True)
OmegaConf.register_new_resolver("module_file", module_file, replace=True)
