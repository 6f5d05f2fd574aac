"""Command line: `python -m tools.serve`, or `make serve`."""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from tools.serve.server import serve
from tools.serve.service import Service
from tools.serve.settings import MAX_TOKENS, Settings
from tunepress.core.errors import InputError
from tunepress.core.paths import ONNX

KEY = "TUNEPRESS_API_KEY"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def main() -> None:
    settings = parse(sys.argv[1:])
    try:
        settings.check()
        if settings.api_key is None and settings.host not in LOOPBACK:
            print(f"serve: anyone who can reach {settings.host} can send requests; set {KEY} to require a key", file=sys.stderr)
        serve(Service(settings))
    except InputError as error:
        sys.exit(f"serve: {error}")
    except KeyboardInterrupt:
        sys.exit("serve: interrupted")


def parse(arguments: list[str]) -> Settings:
    parser = argparse.ArgumentParser(
        prog="python -m tools.serve",
        description="Serve the int4 model over HTTP with OpenAI's API.",
        epilog=f"If the environment variable {KEY} is set, clients must send it as their API key.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", type=Path, default=ONNX, metavar="FOLDER", help="folder of the ONNX model")
    parser.add_argument("--name", default="tunepress", help="name of the model for clients")
    parser.add_argument(
        "--adapter",
        type=named_folder,
        action="append",
        default=[],
        dest="adapters",
        metavar="NAME=FOLDER",
        help="also serve the adapter of another model, built with build.adapters=separate from the same base; can be repeated",
    )
    parser.add_argument(
        "--adapters-from",
        type=Path,
        metavar="FOLDER",
        help="let clients load and unload adapters of folders in this one: /v1/load_lora_adapter and /v1/unload_lora_adapter",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, metavar="N", help="port; 0 chooses a free one")
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="number of processes that hold the model; each answers one prompt at a time, and they share the cores",
    )
    parser.add_argument(
        "--queue", type=int, default=64, metavar="N", help="maximum number of waiting prompts; more are refused with 429"
    )
    parser.add_argument("--max-prompts", type=int, default=16, metavar="N", help="maximum number of prompts in a request")
    parser.add_argument("--max-body", type=int, default=1 << 20, metavar="BYTES", help="maximum size of a request")
    parser.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help=f"maximum length of a prompt and its answer together, which determines the memory; by default {MAX_TOKENS} or the "
        "longest training row, and at most the model's context. A longer answer is cut with finish_reason length",
    )
    parser.add_argument(
        "--max-connections",
        type=int,
        default=256,
        metavar="N",
        help="maximum number of connections; a new one replaces the one that has been idle longest",
    )
    parser.add_argument(
        "--timeout", type=float, default=120.0, metavar="SECONDS", help="for a request, including its time in the queue"
    )
    parser.add_argument(
        "--client-timeout",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="for a client to send a head or a body, or to continue reading",
    )
    parser.add_argument("--grace", type=float, default=30.0, metavar="SECONDS", help="for accepted requests after SIGTERM")
    parser.add_argument(
        "--restarts",
        type=int,
        default=5,
        metavar="N",
        help="maximum number of restarts of a model process in a row, without an answer in between; the server exits when "
        "none is restarted any more",
    )
    parser.add_argument(
        "--abstain-below",
        type=float,
        metavar="P",
        help="the probability of the most likely label below which /v1/classify gives none; by default evaluate.abstain_below of "
        "the run, and 0 never abstains",
    )
    options = vars(parser.parse_args(arguments))
    if repeated := [name for name, number in Counter(name for name, _ in options["adapters"]).items() if number > 1]:
        parser.error(f"argument --adapter: the name {repeated[0]} is there twice")
    return Settings(**options | {"adapters": dict(options["adapters"])}, api_key=os.environ.get(KEY))


def named_folder(text: str) -> tuple[str, Path]:
    """An adapter's name and folder."""
    name, separator, folder = text.partition("=")
    if not (name.strip() and separator and folder):
        raise argparse.ArgumentTypeError(f"must be NAME=FOLDER, got {text!r}")
    return name, Path(folder)


if __name__ == "__main__":
    main()
