"""Runs a stage from the command line: it reads the configuration and prints one line, the result or an error."""

import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tunepress.core import environment
from tunepress.core.environment import Environment
from tunepress.core.errors import InputError, one_line
from tunepress.core.files import recover_all, write_json
from tunepress.core.lock import stage_lock
from tunepress.core.params import load, warn_if_stale
from tunepress.core.paths import BASE, LOSS_CURVES, PREPARED, REPORT, TIMINGS

ConfigT = TypeVar("ConfigT")


@dataclass
class Installed:
    """The part of params.yaml that every stage reads. In dvc.yaml the lock is a dependency and not a parameter."""

    environment: Environment


def run(name: str, main: Callable[[ConfigT], str], config_class: type[ConfigT], overrides: list[str]) -> None:
    """Calls `main` with its part of params.yaml, prints the result, and exits with a message if it fails.

    The duration and the peak memory are written to metrics/timings/<name>.json.

    Args:
        name: of the stage.
        main: takes the configuration and returns a few words about what it made.
        config_class: a dataclass whose fields are named like top-level keys of params.yaml.
        overrides: Hydra overrides, and `--verbose` to show the traceback of an error.
    """
    verbose = "--verbose" in overrides or bool(os.environ.get("HYDRA_FULL_ERROR"))
    warnings.filterwarnings("ignore", category=FutureWarning)  # peft and transformers warn about each other
    start = time.monotonic()
    try:
        warn_if_stale()
        arguments = [override for override in overrides if override != "--verbose"]
        environment.check(load(Installed, arguments).environment.lock)
        with stage_lock(name) as is_locked:
            for folder in (BASE.parent, PREPARED.parent, LOSS_CURVES.parent, REPORT.parent) if is_locked else ():
                recover_all(folder)
            summary = main(load(config_class, arguments))
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted")
    except Exception as error:
        if verbose:
            raise
        sys.exit(f"{name}: {error_message(error)}")
    if int(os.environ.get("RANK", "0")):  # of several processes only the first one prints and writes
        return
    seconds = time.monotonic() - start
    memory = peak_memory_mb()
    write_json(TIMINGS / f"{name}.json", {"seconds": round(seconds, 2), "peak_memory_mb": memory})
    print(f"{name}: {summary}, {seconds:.0f} s, peak memory {memory / 1000:.2f} GB")


def error_message(error: Exception) -> str:
    """One line for the user; for an unexpected error it also says how to see the traceback."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'disk'}: {error.strerror.lower()}"
    return f"{type(error).__name__}: {one_line(error)} (HYDRA_FULL_ERROR=1 shows the traceback)"


def peak_memory_mb() -> int:
    """The largest resident set size of this process so far, in MB of 1,000,000 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bytes_per_unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, KiB on Linux
    return peak * bytes_per_unit // 1_000_000
