"""The tasks of benchmarks.build, each called in a process of its own, in a folder laid out like the project."""

import hashlib
import re
import time
from pathlib import Path
from typing import Any

from tunepress.core.files import size_mb
from tunepress.core.paths import BASE

OURS, THEIRS = Path("models/tunepress"), Path("models/builder")


def tunepress() -> dict[str, Any]:
    """What the stage does between its inputs and its checks."""
    from benchmarks.models import recipe
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
    """The number of nodes, and how many are equal in both graphs."""
    ours, theirs = nodes(OURS), nodes(THEIRS)
    assert ours.keys() == theirs.keys()
    return {"nodes": len(theirs), "equal": sum(ours[name] == theirs[name] for name in theirs)}


def nodes(folder: Path) -> dict[str, Any]:
    """Each node by its first output: operator, attributes, inputs, and of constants their bytes.

    The two ways to a quantized product give it different names, and its constants different names and shapes of the same bytes.
    """
    import onnx_ir as ir

    def common(name: str | None) -> str:
        return re.sub(r"MatMul(NBits|_Q[48])", "MatMul", name or "")

    described = {}
    for node in ir.load(folder / "model.onnx").graph:
        inputs: list[str] = []
        for value in node.inputs:
            constant = value.const_value if value is not None else None
            digest = hashlib.sha256(constant.tobytes()).hexdigest() if constant is not None else None
            inputs.append(digest or common(value.name if value is not None else None))
        attributes = sorted(f"{name}={attribute.value}" for name, attribute in node.attributes.items())
        described[common(node.outputs[0].name)] = (node.domain, node.op_type, inputs, attributes)
    return described
