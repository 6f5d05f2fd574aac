"""make prompts: rows as the model sees them, with the learned part marked and the numbers of tokens."""

from pathlib import Path

import pytest

from tests.command import run_module
from tools.cli import prompts
from tunepress.core.errors import InputError
from tunepress.core.files import write_jsonl
from tunepress.text.prompt import Prompt
from tunepress.text.segments import context, learned


@pytest.fixture
def project(tiny_phi3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/base").symlink_to(tiny_phi3)
    prepared = tmp_path / "data/prepared"
    prepared.mkdir(parents=True)
    Prompt("{a}: ", "{b}", None, 100, eos_token_ids=(256,)).save(prepared)
    rows = [
        {"source": "rows.csv row 1", "segments": [context("[red] "), learned("joy", "joy")]},
        {"source": "rows.csv row 2", "segments": [context("q"), learned("yes", "yes"), context("r"), learned("no", "no")]},
    ]
    write_jsonl(prepared / "train.jsonl", rows)
    return tmp_path


def test_the_learned_parts_are_marked_and_counted(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts.prompts(5)
    assert capsys.readouterr().out.splitlines() == [
        "rows.csv row 1: 10 tokens, 4 of them learned",  # the byte tokenizer, and the token that ends an answer
        "[red] «joy»",
        "",
        "rows.csv row 2: 8 tokens, 6 of them learned",
        "q«yes»r«no»",
        "",
    ]
    prompts.prompts(1)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_fewer_than_one_row_is_refused(project: Path) -> None:
    with pytest.raises(InputError, match=r"^N: must be at least 1, got 0$"):
        prompts.prompts(0)


def test_without_prepared_rows_the_command_ends_in_one_line(tmp_path: Path) -> None:
    done = run_module("tools.cli.prompts", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "prompts: data/prepared/prompt.json: not found; models of this pipeline have it, run `make repro`\n"
