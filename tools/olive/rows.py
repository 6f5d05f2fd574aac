"""Where the rows of a data configuration are: files of this machine or a datastore, or a dataset of the Hub."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.olive import azure
from tools.olive.document import text
from tools.olive.fate import Fate, Kind, Rule, otherwise, refused, taken, to
from tools.olive.hub import pinned
from tunepress.core.errors import InputError
from tunepress.remote.addresses import is_remote, url_problem

FILES = ("json", "csv", "parquet")  # kinds of files that Olive names where a dataset of the Hub would stand
UNUSED = refused("no pass trains on it; an experiment has one section `data`")


def rows(flat: Mapping[str, Any], folder: Path, path: str) -> dict[str, Rule]:
    """The rules of the fields that say where the rows are."""
    kind = flat.get("type", "HuggingfaceContainer")
    if str(kind).lower() != "huggingfacecontainer":
        raise InputError(f"{path}.type: {kind} is no HuggingfaceContainer, the only kind whose rows can be read here")
    if flat.get("data_files.type") == azure.DATASTORE:
        return azure.row_rules() | of_a_file(flat)
    if any(name.startswith("data_files.") for name in flat):
        return by_split(flat, folder, path)
    if flat.get("data_files") is not None:
        return {"data_files": files(flat["data_files"], folder, path)} | of_a_file(flat)
    if flat.get("data_name") in (*FILES, None):
        raise InputError(f"{path}: names no rows; set data_files, or a dataset of the Hub as data_name")
    pin = otherwise("data.revision is the commit it stands for")
    return {"data_name": on_hub(flat, folder, path), "subset": to("data.name"), "split": to("data.split"), "revision": pin}


def on_hub(flat: Mapping[str, Any], folder: Path, path: str) -> Fate:
    """A dataset of the Hub, or a folder that holds one."""
    name = str(flat["data_name"])
    values: dict[str, Any] = {"data.files": [], "data.path": os.path.relpath(folder / name)}
    if not (folder / name).is_dir():
        revision = text(flat.get("revision"), f"{path}: revision")
        commit, _ = pinned(name, revision, f"{path}: data_name", dataset=True)
        values |= {"data.path": name, "data.revision": commit}
    if "split" not in flat:
        values["data.split"] = "validation"  # what Olive takes
    return Fate(Kind.taken, f"data.path={values['data.path']}", values)


def of_a_file(flat: Mapping[str, Any]) -> dict[str, Rule]:
    """The rules of what is said beside a file's name."""
    whole = otherwise("a file is read whole; data.test_size and data.eval_dataset_size cut it")
    part = refused("a file is read whole; data.test_size and data.eval_dataset_size cut it")
    split = flat.get("split")
    return {"data_name": otherwise("the file's name says it"), "split": part if "[" in str(split) else whole}


def files(given: Any, folder: Path, path: str) -> Fate:
    """Files of this machine, and addresses."""
    listed = given if isinstance(given, list) else [given]
    return taken("data.files", [located(file, folder, path) for file in listed])


def located(file: Any, folder: Path, path: str) -> str:
    """An address as it stands, or a file's place from here."""
    if isinstance(file, str) and is_remote(file):
        why = url_problem(file)
        if why:
            raise InputError(f"{path}: data_files: {why}")
        return file
    if not isinstance(file, str) or not (folder / file).is_file():
        raise InputError(f"{path}: no such file {folder / str(file)} (data_files); Olive looks beside the configuration")
    return os.path.relpath(folder / file)


def by_split(flat: Mapping[str, Any], folder: Path, path: str) -> dict[str, Rule]:
    """The rules where files are given by split: the one that is read counts."""
    split = str(flat.get("split", "train"))
    given = flat.get(f"data_files.{split}")
    if given is None:
        raise InputError(f"{path}: data_files has no {split}, the split that is read")
    others = [name for name in flat if name.startswith("data_files.") and name != f"data_files.{split}"]
    return of_a_file(flat) | {f"data_files.{split}": files(given, folder, path)} | dict.fromkeys(others, UNUSED)
