"""One task of benchmarks/build.py, in a process and a folder of its own, which is the working folder.

python -m benchmarks.build_contender REPORT TASK [SHAPE]
"""

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.merge_contender import imports, models
from tunepress.core.files import size_mb
from tunepress.core.paths import BASE

OURS, THEIRS = Path("models/tunepress"), Path("models/builder")


def tunepress() -> dict[str, Any]:
    """What the stage does between its inputs and its checks."""
    from benchmarks.build_recipe import recipe
    from stages.build.stage import build

    start = time.perf_counter()
    build(recipe(), BASE, OURS)
    return {"work_seconds": time.perf_counter() - start, "size_mb": size_mb(OURS)}


def builder() -> dict[str, Any]:
    """The builder alone."""
    from stages.build.builder import Builder

    start = time.perf_counter()
    Builder("int4", "cpu", []).build(BASE, THEIRS)
    return {"work_seconds": time.perf_counter() - start, "size_mb": size_mb(THEIRS)}


def compare() -> dict[str, Any]:
    """The nodes of both graphs, and how many of them are alike."""
    ours, theirs = described(OURS), described(THEIRS)
    assert ours.keys() == theirs.keys()
    return {"nodes": len(theirs), "equal": sum(ours[name] == theirs[name] for name in theirs)}


def described(folder: Path) -> dict[str, Any]:
    """Each node by its first output: operator, attributes, inputs, and of constants their bytes.

    A quantized product has another name by each way to it, and its constants other names and other shapes of the same bytes.
    """
    import onnx_ir as ir

    def without_way(name: str | None) -> str:
        return re.sub(r"MatMul(NBits|_Q[48])", "MatMul", name or "")

    found = {}
    for node in ir.load(folder / "model.onnx").graph:
        inputs: list[str] = []
        for value in node.inputs:
            constant = value.const_value if value is not None else None
            digest = hashlib.sha256(constant.tobytes()).hexdigest() if constant is not None else None
            inputs.append(digest or without_way(value.name if value is not None else None))
        attributes = sorted(f"{name}={attribute.value}" for name, attribute in node.attributes.items())
        found[without_way(node.outputs[0].name)] = (node.domain, node.op_type, inputs, attributes)
    return found


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "models": models,
    "imports": imports,
    "tunepress": tunepress,
    "builder": builder,
    "compare": compare,
}


if __name__ == "__main__":
    report, task, *arguments = sys.argv[1:]
    Path(report).write_text(json.dumps(TASKS[task](*arguments)), encoding="utf-8")
