"""The stages of dvc.yaml and their commands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunepress.core.files import parse_csv
from tunepress.core.params import read_yaml
from tunepress.core.paths import PREDICTIONS

DVC_YAML = Path("dvc.yaml")
REMOTE = "${dvc.remote}"  # the matrix of the stages that bring rows from elsewhere


def shipped_answers(revision: str) -> list[dict[str, str]]:
    """The predictions of a commit's int4 model, from DVC's cache; empty if they are not there."""
    from dvc.api import DVCFileSystem  # seconds, which the stages do not need

    try:
        return parse_csv(DVCFileSystem(rev=revision).read_text((PREDICTIONS / "onnx.csv").as_posix()))
    except FileNotFoundError:
        return []


def commands(remote: Sequence[str]) -> dict[str, str]:
    """The command of each stage by the name that DVC gives it, such as `evaluate@onnx`, in the order of dvc.yaml.

    Args:
        remote: the lists of `data` that name files elsewhere.
    """
    stages: dict[str, Any] = read_yaml(DVC_YAML)["stages"]
    expanded = {}
    for name, stage in stages.items():
        if "matrix" not in stage:
            expanded[name] = stage["cmd"]
            continue
        ((item, values),) = stage["matrix"].items()
        for value in remote if values == REMOTE else values:
            expanded[f"{name}@{value}"] = stage["cmd"].replace(f"${{item.{item}}}", value)
    return expanded
