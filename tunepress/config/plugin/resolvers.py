"""The functions that conf/ calls as `${name:...}`, in whichever process composes it."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from tunepress.config.checks import check_composed
from tunepress.config.data import Datastore, as_list
from tunepress.config.plugin.watched import watched
from tunepress.core.errors import InputError
from tunepress.core.paths import CALIBRATION_ROWS, TRAINING_ROWS
from tunepress.remote.collected import COLLECTED, remote_lists


def register() -> None:
    """Makes them known to OmegaConf."""
    for name, resolver in RESOLVERS.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def tracked(otherwise: str, path: str | None) -> str:
    """A path for a dependency in dvc.yaml, or `otherwise` if there is none."""
    return otherwise if path is None else path


def local_dataset(files: Any, path: str | None) -> str | None:
    """data.path if rows are read from it and it is a local folder; None if it is a dataset on a hub."""
    return path if path and not as_list(files) and Path(path).is_dir() else None


def remote(*files: Any) -> list[str]:
    """The names of those lists of `data` that contain an address, given the value of each."""
    return remote_lists(*([str(file) for file in as_list(value)] for value in files))


def collected(otherwise: str, remote: Sequence[str]) -> str:
    """The one path that covers the folders in which `collect` puts remote files."""
    return os.path.commonpath([COLLECTED / name for name in remote]) if remote else otherwise


def calibration(files: Any) -> str:
    """The rows that gptq is calibrated on."""
    return str(CALIBRATION_ROWS if as_list(files) else TRAINING_ROWS)


def datastore_address(datastore: DictConfig) -> str:
    """The address of data.datastore."""
    if missing := sorted(OmegaConf.missing_keys(datastore)):
        raise InputError(f"{missing[0]}: has no value; set it with -S {missing[0]}=...")
    return cast(Datastore, OmegaConf.to_object(datastore)).address


def module_file(function: str | None) -> str | None:
    """The file of a function of this project named package.module.function; None for one that is installed."""
    path = Path(*(function or "").split(".")[:-1]).with_suffix(".py") if function and "." in function else None
    return path.as_posix() if path and path.exists() else None


RESOLVERS: dict[str, Callable[..., Any]] = {
    "check": check_composed,
    "tracked": tracked,
    "watched": watched,
    "local_dataset": local_dataset,
    "remote": remote,
    "collected": collected,
    "calibration": calibration,
    "datastore_address": datastore_address,
    "module_file": module_file,
}
