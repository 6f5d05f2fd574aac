"""`dvc exp show` and the diffs of DVC in a terminal of 120 columns, with ten experiments."""

import json
from pathlib import Path

import pytest
from dvc.repo.experiments.refs import ExpRefInfo

from tests.clone import Clone

COLUMNS = 120  # of a terminal: DVC's pager cuts what is to the right of them and scrolls
NAMES = [
    *("lucid-tees", "dozy-roos", "unled-gabs", "puffy-daks", "sunny-mica"),
    *("tubal-mugs", "royal-heme", "fated-ceca", "patient-name", "eager-oafs"),
]
ALL = ["accuracy", "drop", "base", "baseline", "kl", "size_mb", "gate", "tokens_s"]
VARYING = ["accuracy", "drop", "kl", "size_mb", "tokens_s"]


@pytest.fixture(scope="module")
def clone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with experiments that nobody ran: commits as DVC makes them, of another learning rate and other metrics each."""
    clone = Clone.of(root, tmp_path_factory.mktemp("experiments") / "clone")
    commit = clone.run("git", "rev-parse", "HEAD").strip()
    files = {name: (clone.folder / name).read_text(encoding="utf-8") for name in ("params.yaml", "dvc.lock")}
    for number, name in enumerate(NAMES, 1):
        for file, text in files.items():
            changed = text.replace("learning_rate: 0.001\n", f"learning_rate: 0.000{number}\n")
            assert changed != text
            (clone.folder / file).write_text(changed, encoding="utf-8")
        summary: dict[str, object] = {"accuracy": 0.9 + number / 1000, "drop": number / 10000, "base": 0.2792, "baseline": 0.8}
        summary |= {"kl": number / 1000, "size_mb": 90 + number / 100, "gate": "passed"}
        write(clone.folder / "metrics/summary.json", summary)
        write(clone.folder / "metrics/speed.json", {"tokens_s": 140 + number / 10})
        clone.run("git", "add", "--all")
        tree = clone.run("git", "write-tree").strip()
        experiment = clone.run("git", "commit-tree", tree, "-p", commit, "-m", f"dvc: commit experiment {number}").strip()
        clone.run("git", "update-ref", str(ExpRefInfo(commit, name)), experiment)
    clone.run("git", "reset", "--quiet", "--hard")
    return clone


def write(path: Path, metrics: dict[str, object]) -> None:
    path.write_text(json.dumps(metrics), encoding="utf-8")


def shown(clone: Clone, *options: str) -> list[str]:
    """What a terminal shows of the table, without empty lines: those that a line break in a parameter adds to a row."""
    table = clone.run("dvc", "exp", "show", *options)
    return [line for line in (line[:COLUMNS] for line in table.splitlines()) if line.strip(" ─")]


def cells(experiments: list[str]) -> dict[str, list[str]]:
    """The values of each experiment, by its name, after the time of two words."""
    return {line.partition("[")[2].partition("]")[0]: line.partition("]")[2].split()[2:] for line in experiments}


@pytest.mark.slow
def test_all_metrics_are_in_the_first_columns(clone: Clone) -> None:
    header, _, _, *experiments = shown(clone)
    assert header.split()[: len(ALL) + 2] == ["Experiment", "Created", *ALL]
    rows = cells(experiments)
    assert sorted(rows) == sorted(NAMES)
    assert rows["tubal-mugs"][: len(ALL)] == ["0.906", "0.0006", "0.2792", "0.8", "0.006", "90.06", "passed", "140.6"]


@pytest.mark.slow
def test_what_changed_is_in_the_first_columns_with_the_parameter_that_changed_it(clone: Clone) -> None:
    header, _, _, *experiments = shown(clone, "--only-changed")
    assert header.split()[: len(VARYING) + 3] == ["Experiment", "Created", *VARYING, "train.learning_rate"]
    rows = cells(experiments)
    assert sorted(rows) == sorted(NAMES)
    assert rows["tubal-mugs"][: len(VARYING) + 1] == ["0.906", "0.0006", "0.006", "90.06", "140.6", "0.0006"]


@pytest.mark.parametrize("kind", ["metrics", "params"])
def test_a_diff_fits_a_screen(kind: str, clone: Clone) -> None:
    lines = clone.run("dvc", kind, "diff", "HEAD", NAMES[0]).splitlines()
    assert 1 < len(lines) <= 24
    assert max(map(len, lines)) <= COLUMNS
