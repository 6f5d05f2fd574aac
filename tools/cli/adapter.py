"""Writes an adapter's file for an ONNX model that was built with build.adapters=separate, beside the adapters that it has.

    python -m tools.cli.adapter models/adapter models/onnx/another.onnx_adapter

One model serves all adapters in its folder; each answer can use another one.
"""

import argparse
import sys
from pathlib import Path

from stages.build.adapters.export import write_adapter
from stages.build.adapters.lora import load
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output, size_mb


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.cli.adapter", description="Write the file of another adapter.")
    parser.add_argument("adapter", type=Path, help="adapter folder of peft, such as models/adapter")
    parser.add_argument("file", type=Path, help="file to write in the folder of the ONNX model, NAME.onnx_adapter")
    arguments = parser.parse_args()
    try:
        write(arguments.adapter, arguments.file)
    except InputError as error:
        sys.exit(f"adapter: {error}")
    print(f"{arguments.file}: {size_mb(arguments.file)} MB")


def write(adapter: Path, file: Path) -> None:
    """Writes the file of an adapter for the model in the same folder.

    Raises:
        InputError: the model or the adapter does not exist, or they do not fit.
    """
    model = file.parent / "model.onnx"
    if not model.exists():
        raise InputError(f"{file.parent}: model.onnx not found; run `make repro`")
    with atomic_output(file) as partial:
        write_adapter(load(adapter), model, partial)


if __name__ == "__main__":
    main()
