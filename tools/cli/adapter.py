"""Writes an adapter's file for an ONNX model that was built with build.adapters=separate, beside the adapters that it has.

    python -m tools.cli.adapter models/adapter models/onnx/another.onnx_adapter

One model serves all the adapters in its folder; which one answers is chosen for each answer.
"""

import argparse
import sys
from pathlib import Path

from stages.build.adapters.export import write_adapter
from stages.build.adapters.lora import load
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output, size_mb


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.cli.adapter", description="Write the file of another adapter.")
    parser.add_argument("adapter", type=Path, help="folder in peft's layout, such as models/adapter")
    parser.add_argument("file", type=Path, help="what to write, in the folder of the ONNX model: NAME.onnx_adapter")
    arguments = parser.parse_args()
    try:
        write(arguments.adapter, arguments.file)
    except InputError as error:
        sys.exit(f"adapter: {error}")
    print(f"{arguments.file}: {size_mb(arguments.file)} MB")


def write(adapter: Path, file: Path) -> None:
    """Writes the file of an adapter for the model in the folder where the file will lie.

    Raises:
        InputError: there is no such model or adapter, or the two do not fit.
    """
    model = file.parent / "model.onnx"
    if not model.exists():
        raise InputError(f"{file.parent}: no model.onnx, so there is no ONNX model; run `make repro`")
    with atomic_output(file) as partial:
        write_adapter(load(adapter), model, partial)


if __name__ == "__main__":
    main()
