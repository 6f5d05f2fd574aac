"""`python -m tools.cli.make_args MODULE ARGUMENT ...` runs a module with these arguments and those of $ARGS, for the Makefile.

ARGS is split into words like in a shell, including quotes, but nothing in it is executed, expanded or redirected.
"""

import os
import shlex
import sys


def main() -> None:
    """Replaces this process with the module."""
    try:
        words = shlex.split(os.environ.get("ARGS", ""))
    except ValueError as error:
        sys.exit(f"ARGS: {error}")
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[1:], *words])  # noqa: S606


if __name__ == "__main__":
    main()
