"""identify and collect: what they write, what they ask for, and what a run without a network goes on with."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from stages import collect, identify
from tests.loopback import Files, serving
from tests.stages.params import write_params
from tunepress.config.data import Data
from tunepress.core.errors import InputError
from tunepress.core.params import load

ROWS = b'{"phrase": "a day at the sea", "tone": "joy"}\n'
IDENTIFIED = Path("data/identified/files.json")
COLLECTED = Path("data/collected/files")
CLOUD = {"adlfs", "azure", "botocore", "s3fs"}  # packages of requirements/azure.txt


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEPRESS_NETWORK_SECONDS", "60")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files() -> Iterator[Files]:
    with serving() as server:
        server.files = {"/a/tone.jsonl": ROWS, "/b/tone.jsonl": ROWS.upper()}
        yield server


@pytest.fixture
def sections(root: Path, files: Files) -> identify.Config:
    data = OmegaConf.merge(OmegaConf.structured(Data), OmegaConf.load(root / "conf/data/tone.yaml"))
    data.files = [f"{files.url}/a/tone.jsonl", "data/raw/tone.jsonl", f"{files.url}/b/tone.jsonl"]
    actual = OmegaConf.to_object(data)
    assert isinstance(actual, Data)
    return identify.Config(actual)


def run(sections: identify.Config) -> None:
    identify.main("files", sections)
    collect.main("files", collect.Config())


def test_versions_are_written_and_then_the_files(sections: identify.Config, files: Files) -> None:
    assert identify.main("files", sections) == f"2 remote files, 2 new or changed, in {IDENTIFIED}"
    assert [method.partition(" ")[0] for method in files.asked] == ["HEAD", "HEAD"]
    entries = json.loads(IDENTIFIED.read_text())
    assert [(entry["url"], entry["size"]) for entry in entries] == [
        (f"{files.url}/a/tone.jsonl", len(ROWS)),
        (f"{files.url}/b/tone.jsonl", len(ROWS)),
    ]
    assert collect.main("files", collect.Config()).startswith(f"2 files in {COLLECTED} (")
    assert {path.name: path.read_bytes() for path in COLLECTED.iterdir()} == {
        "1-tone.jsonl": ROWS,
        "2-tone.jsonl": ROWS.upper(),
    }


def test_only_a_change_there_changes_what_is_written_here(sections: identify.Config, files: Files) -> None:
    identify.main("files", sections)
    before = IDENTIFIED.read_bytes()
    assert "2 remote files, 0 new or changed" in identify.main("files", sections)
    assert IDENTIFIED.read_bytes() == before
    files.files["/b/tone.jsonl"] = ROWS
    assert "2 remote files, 1 new or changed" in identify.main("files", sections)
    assert IDENTIFIED.read_bytes() != before


def test_without_an_answer_the_version_seen_before_stays_and_one_line_a_file_says_so(
    sections: identify.Config, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    identify.main("files", sections)
    before = IDENTIFIED.read_bytes()
    files.statuses = dict.fromkeys(files.files, 503)
    identify.main("files", sections)
    assert IDENTIFIED.read_bytes() == before
    message = capsys.readouterr().err.splitlines()
    assert len(message) == 2
    assert "this run continues with the known version" in message[0]


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\n[]\n", '[{"url": "https://example.org/tone.jsonl"}]', "[1]"])
def test_a_list_of_versions_that_git_could_not_merge_is_named(text: str, sections: identify.Config) -> None:
    IDENTIFIED.parent.mkdir(parents=True)
    IDENTIFIED.write_text(text, encoding="utf-8")
    for stage in (lambda: identify.main("files", sections), lambda: collect.main("files", collect.Config())):
        with pytest.raises(InputError, match=rf"^{IDENTIFIED}: not a file of identify \(.*; delete it and run `dvc repro`$"):
            stage()


def test_without_an_answer_a_file_never_seen_is_an_error(sections: identify.Config, files: Files) -> None:
    identify.main("files", sections)
    sections.data.files.append(f"{files.url}/c/tone.jsonl")
    files.statuses = dict.fromkeys([*files.files, "/c/tone.jsonl"], 503)
    with pytest.raises(InputError, match=r"/c/tone\.jsonl: the server cannot answer \(status 503\)"):
        identify.main("files", sections)


def test_a_file_that_is_gone_is_an_error_though_it_was_seen(sections: identify.Config, files: Files) -> None:
    identify.main("files", sections)
    before = IDENTIFIED.read_bytes()
    del files.files["/a/tone.jsonl"]
    with pytest.raises(InputError, match=r"/a/tone\.jsonl: no such file there"):
        identify.main("files", sections)
    assert IDENTIFIED.read_bytes() == before


@pytest.mark.parametrize("address", ["'https://example.org/tone.jsonl?sig=x'", "['https://example.org/tone.jsonl?sig=x']"])
def test_an_address_in_params_yaml_is_checked_too(address: str, root: Path) -> None:
    with pytest.raises(InputError, match="the address contains a secret"):
        load(identify.Config, [f"data.files={address}"], root / "params.yaml")


def test_a_collection_is_whole_or_not_there(sections: identify.Config, files: Files) -> None:
    run(sections)
    files.files |= {"/a/tone.jsonl": b"{}\n", "/b/tone.jsonl": b"{}\n"}
    identify.main("files", sections)
    files.statuses = {"/b/tone.jsonl": 503}
    with pytest.raises(InputError, match=r"/b/tone\.jsonl: the server cannot answer"):
        collect.main("files", collect.Config())
    assert (COLLECTED / "1-tone.jsonl").read_bytes() == ROWS
    assert [path.name for path in COLLECTED.parent.iterdir()] == ["files"]


@pytest.mark.parametrize("stage", ["identify", "collect"])
def test_the_list_must_be_named(stage: str, root: Path) -> None:
    done = subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=root, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        1,
        f"{stage}: name a list: python -m stages.{stage} {{files,validation_files,test_files,calibration_files}}\n",
    )


# what is an extra


def python(code: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python here, with the project's modules."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


def test_files_over_https_need_no_package_of_a_cloud(sections: identify.Config, root: Path) -> None:
    write_params(sections)
    code = (
        "import runpy, sys; sys.argv = ['identify', 'files']; runpy.run_module('stages.identify', run_name='__main__')\n"
        f"found = {{name.partition('.')[0] for name in sys.modules}} & {CLOUD}\n"
        "assert not found, found"
    )
    done = python(code, root)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(IDENTIFIED.read_text())) == 2


def imported_at_once(path: Path) -> set[str]:
    """Modules that a module imports when it is imported itself."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    names: set[str] = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif not isinstance(node, ast.FunctionDef) and not (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ):
            waiting += ast.iter_child_nodes(node)
    return names


def test_no_stage_and_no_composition_imports_a_package_of_a_cloud(root: Path) -> None:
    stages = (root / "stages").glob("*.py"), (root / "stages").glob("*/__main__.py")
    waiting = [root / "hydra_plugins/tunepress.py", *chain(*stages)]
    actual, names = set(waiting), set()
    while waiting:
        now = imported_at_once(waiting.pop())
        names |= now
        ours = {path for name in now if (path := root.joinpath(*name.split(".")).with_suffix(".py")).exists()} - actual
        actual |= ours
        waiting += ours
    assert root / "tunepress/remote/file.py" in actual
    assert {"fsspec", "torch"} <= {name.partition(".")[0] for name in names}
    assert not {name.partition(".")[0] for name in names} & CLOUD


@pytest.mark.parametrize(
    ("url", "absent"),
    [
        ("abfs://rows@account.dfs.core.windows.net/tone.jsonl", "adlfs"),
        ("s3://bucket/tone.jsonl", "s3fs"),
        ("azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/d/paths/tone.jsonl", "azure.ai.ml"),
    ],
)
def test_without_the_extra_one_line_says_what_to_install(url: str, absent: str, sections: identify.Config, root: Path) -> None:
    sections.data.files = [url]
    write_params(sections)
    code = (
        f"import runpy, sys; sys.modules['{absent}'] = None; sys.argv = ['identify', 'files']\n"
        "runpy.run_module('stages.identify', run_name='__main__')"
    )
    done = python(code, root)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"identify_files: {url}: ")
    assert "`make setup-azure`" in done.stderr
