"""The command line: `python -m tools.serve`, or `make serve`."""

import argparse
import os
import sys
from pathlib import Path

from tools.serve.server import serve
from tools.serve.service import Service
from tools.serve.settings import MAX_TOKENS, Settings
from tunepress.core.errors import InputError
from tunepress.core.paths import ONNX

KEY = "TUNEPRESS_API_KEY"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def main() -> None:
    """Serves until a signal ends it."""
    settings = parse(sys.argv[1:])
    try:
        settings.check()
        if settings.api_key is None and settings.host not in LOOPBACK:
            print(f"serve: whoever reaches {settings.host} may ask; set {KEY} to want a key", file=sys.stderr)
        serve(Service(settings))
    except InputError as error:
        sys.exit(f"serve: {error}")
    except KeyboardInterrupt:
        sys.exit("serve: interrupted")


def parse(arguments: list[str]) -> Settings:
    """What is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.serve",
        description="Serve the int4 model over HTTP, as OpenAI's API.",
        epilog=f"The environment variable {KEY}, where it is set, is the key that clients must show.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", type=Path, default=ONNX, metavar="FOLDER", help="folder of the ONNX model")
    parser.add_argument("--name", default="tunepress", help="by which clients call the model")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=8080, metavar="N", help="0 takes a free one")
    parser.add_argument("--queue", type=int, default=64, metavar="N", help="prompts that may wait; more are told to come again")
    parser.add_argument("--max-prompts", type=int, default=16, metavar="N", help="of one request")
    parser.add_argument("--max-body", type=int, default=1 << 20, metavar="BYTES", help="of one request")
    parser.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help=f"of a prompt and its answer together, which decide the memory; without it {MAX_TOKENS}, or those of the longest "
        "training row, and at most the model's context. A longer answer ends there with finish_reason length",
    )
    parser.add_argument(
        "--max-connections", type=int, default=256, metavar="N", help="at once; a new one takes the place of the idlest"
    )
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="that a request may take, with waiting")
    parser.add_argument(
        "--client-timeout",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="that a client may take to send a head or a body, and to read on",
    )
    parser.add_argument("--grace", type=float, default=30.0, metavar="SECONDS", help="for requests under way after SIGTERM")
    parser.add_argument(
        "--restarts",
        type=int,
        default=5,
        metavar="N",
        help="of the model's process, in a row without an answer in between, before the server ends with an error",
    )
    return Settings(**vars(parser.parse_args(arguments)), api_key=os.environ.get(KEY))


if __name__ == "__main__":
    main()
