"""The benchmark of batching: every way gives the same answers, and each has its line."""

from argparse import Namespace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import batching
from benchmarks.serve.letters_model import PROMPT, TINY, letters_model
from tunepress.core.files import write_jsonl
from tunepress.core.paths import ONNX
from tunepress.text.segments import context, learned


def test_every_way_gives_the_same_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root))
    model = letters_model(tmp_path / "made", TINY, context=512, endless=False)
    ONNX.parent.mkdir()
    ONNX.symlink_to(model)
    batching.TEST_ROWS.parent.mkdir(parents=True)
    texts = [PROMPT.render_prompt({"phrase": "x" * number}) for number in range(9)]
    write_jsonl(batching.TEST_ROWS, [{"source": "row", "segments": [context(text), learned("joy", "joy")]} for text in texts])
    measured = batching.compare()
    assert measured["prompts"] == 9
    assert list(measured["ways"]) == ["one at a time", "batches of 4", "batches of 16", "Engine", "two processes"]
    assert [way["other_answers"] for way in measured["ways"].values()] == [0] * 5
    console = Console(width=100)
    with console.capture() as shown:
        console.print(*batching.report(measured, Namespace()))
    assert all(name in shown.get() for name in measured["ways"])
