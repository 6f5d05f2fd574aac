"""Measures the stage prepare on a large file of rows.

    python -m benchmarks.prepare                  # some three minutes on two cores; needs models/base of the default run
    python -m benchmarks.prepare --rows 10000     # to see that it works

The file is JSON lines. Each row has 40 random words of the default rows, and one of their labels. The settings and the tokenizer
are the default's. The stage reads the rows, fills the template, compares and splits them, counts their tokens, and writes
data/prepared, in a process of its own.

The columns:

- seconds: from the start of the process to its end, with imports.
- rows per second: of the whole file.
- cores busy: CPU time of the process divided by its seconds.
- peak memory: largest resident size of the process.
"""

import json
import random
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from benchmarks.harness import Benchmark, cores_busy, gigabytes, main, table
from benchmarks.processes import ROOT, Figures, call
from tunepress.core.errors import InputError
from tunepress.core.files import read_jsonl
from tunepress.core.paths import BASE, PREPARED

WORDS = 40  # of a row
COLUMNS = ("rows", "seconds", "rows per\nsecond", "cores\nbusy", "peak\nmemory")


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=1_000_000, help="in the file, at least 1000 (default: %(default)s)")


def check(options: Namespace) -> None:
    if options.rows < 1000:
        raise InputError(f"--rows: must be at least 1000, got {options.rows}")
    if not (ROOT / BASE).exists():
        raise InputError(f"{BASE}: not found; run `dvc repro fetch`")


def measure(options: Namespace, scratch: Path, console: Console) -> Figures:
    """Writes the rows and runs the stage."""
    console.print(f"prepare: {options.rows:,} rows of {WORDS} words")
    write_rows(scratch / "rows.jsonl", options.rows)
    (scratch / BASE).parent.mkdir()
    (scratch / BASE).symlink_to(ROOT / BASE)
    counted, usage = call("benchmarks.prepare:prepare", scratch, kernels=True, file="rows.jsonl")
    return {"rows": options.rows, "words": WORDS, **counted, **usage.figures()}


def write_rows(file: Path, count: int) -> None:
    default_rows = read_jsonl(ROOT / "data/raw/tone.jsonl")
    words = sorted({word for row in default_rows for word in row["phrase"].split()})
    labels = sorted({row["tone"] for row in default_rows})
    numbers = random.Random(0)
    with file.open("w", encoding="utf-8") as stream:
        for _ in range(count):
            row = {"phrase": " ".join(numbers.choices(words, k=WORDS)), "tone": numbers.choice(labels)}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def prepare(file: str) -> dict[str, Any]:
    """Runs the stage with its default settings for `file`."""
    from omegaconf import OmegaConf

    from stages.prepare import stage

    data = OmegaConf.merge(OmegaConf.load(ROOT / "conf/data/tone.yaml"), {"files": [file]})
    cfg = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(stage.Config), {"data": data, "seed": 0}))
    assert isinstance(cfg, stage.Config)
    stage.main(cfg)
    return {"written_mb": sum(part.stat().st_size for part in PREPARED.iterdir()) // 1_000_000}


def report(measured: Figures, options: Namespace) -> Iterator[RenderableType]:
    seconds = measured["process_seconds"]
    row = (
        f"{measured['rows']:,}",
        f"{seconds:.1f} s",
        f"{measured['rows'] / seconds:,.0f}",
        cores_busy(measured),
        gigabytes(measured["peak_memory_mb"]),
    )
    yield table(f"rows of {measured['words']} words", COLUMNS, [row])


BENCHMARK = Benchmark("prepare", __doc__, ("transformers", "tokenizers"), measure, report, add_options=add_options, check=check)

if __name__ == "__main__":
    main(BENCHMARK)
