"""Command line: `make package FOR=foundry-local` and `make package FOR=hub REPO=me/x`."""

import argparse
import sys
from pathlib import Path

from tools.package import foundry_local
from tunepress.core.errors import InputError
from tunepress.core.files import size_mb
from tunepress.core.paths import ONNX

PACKAGES = Path("models/foundry-local")  # a folder of models, as Foundry Local's cache is


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.package", description="Hand the int4 model to another program.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--model", type=Path, default=ONNX, metavar="FOLDER", help="folder of the ONNX model (%(default)s)")
    targets = parser.add_subparsers(dest="target", required=True, metavar="TARGET")
    local = targets.add_parser("foundry-local", parents=[common], help="write a folder for Foundry Local")
    local.add_argument("--name", default="tunepress", help="of the model in Foundry Local, such as tone or tone:1 (%(default)s)")
    local.add_argument("--output", type=Path, metavar="FOLDER", help=f"the folder (default: {PACKAGES}/NAME)")
    hub = targets.add_parser("hub", parents=[common], help="upload to the Hugging Face Hub")
    hub.add_argument("--repo", required=True, metavar="OWNER/NAME", help="the repo, created if it does not exist")
    hub.add_argument("--public", action="store_true", help="everybody may read the repo; by default it is private")
    arguments = parser.parse_args()
    try:
        print(f"package: {upload(arguments) if arguments.target == 'hub' else write(arguments)}")
    except InputError as error:
        sys.exit(f"package: {error}")
    except OSError as error:
        sys.exit(f"package: {error.filename or 'disk'}: {(error.strerror or str(error)).lower()}")
    except KeyboardInterrupt:
        sys.exit("package: interrupted")


def write(arguments: argparse.Namespace) -> str:
    output: Path = arguments.output or PACKAGES / arguments.name.partition(":")[0]
    foundry_local.write_package(arguments.model, output, arguments.name)
    return f"{output}: {arguments.name} for Foundry Local, {size_mb(output):.0f} MB"


def upload(arguments: argparse.Namespace) -> str:
    from huggingface_hub import HfApi

    from tools.package import hub

    return hub.upload(HfApi(), arguments.repo, arguments.model, arguments.public)


if __name__ == "__main__":
    main()
