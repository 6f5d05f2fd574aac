"""The Makefile: what a user sets reaches the command it is for, letter by letter, and no shell or make evaluates it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RECORDER = f"""#!{sys.executable} -IS
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    print(json.dumps([sys.argv, dict(os.environ)]), file=file)
"""
ENVIRONMENTS = ("cpu", "dev", "search", "serve", "azure")
HOSTILE = (
    "x; touch MARK",
    "x\ntouch MARK",
    "x & touch MARK",
    "$(touch MARK)",
    "`touch MARK`",
    '"; touch MARK; "',
    "'; touch MARK; '",
    "x > MARK",
    "$(shell touch MARK)",
    "${shell touch MARK}",
    "$HOME costs $5 # and *",
)
HOSTILE_PATHS = ("x;touch${IFS}MARK", "`y`", "x\\y", "$(y)", "x|y", "x&y", "~", "[a-z]", "x*", "x?", "#x", "x:y", "x%y", "")
# target, variable, where its value is in the command's words
TARGETS = [
    ("package", "FOR", "{}"),
    ("package", "REPO", "--repo={}"),
    ("package", "NAME", "--name={}"),
    ("exp-show", "REV", "--rev={}"),
    ("import-olive", "CONFIG", "{}"),
    ("import-olive", "NAME", "--name={}"),
    ("search", "SEARCH", "{}"),
    ("docker-train", "EXPERIMENT", "+experiment={}"),
    ("docker-train", "IMAGE", "environment={}"),
    ("docker-shell", "IMAGE", "{}"),
    ("docker-serve", "IMAGE", "{}"),
    ("docker-build", "IMAGE", "{}"),
    ("remote-azure", "URL", "{}"),
    ("remote-azure", "ACCOUNT", "--account={}"),
    ("azure-publish", "NAME", "{}"),
    ("azure-submit", "EXPERIMENT", "--experiment={}"),
    ("azure-fetch", "JOB", "{}"),
    ("doctor", "EXPERIMENT", "+experiment={}"),
]
WITH_ARGS = ("predict", "serve", "package", "push", "pull", "azure-publish", "azure-submit", "azure-fetch", "doctor")


class Project:
    """A folder with the Makefile, and commands that write down how they are called."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder, self.record = folder, folder / "record"
        shutil.copy(root / "Makefile", folder)
        (folder / "requirements").mkdir()
        for name in ENVIRONMENTS:
            (folder / f"requirements/{name}.txt").touch()
        for command in (".venv/bin/python", ".venv/bin/dvc", "docker/build", "docker/run", "python"):
            (folder / command).parent.mkdir(parents=True, exist_ok=True)
            (folder / command).write_text(RECORDER, encoding="utf-8")
            (folder / command).chmod(0o755)
        for name in ENVIRONMENTS:
            (folder / f".venv/.{name}").touch()

    def make(
        self, *words: str, code: int = 0, error: str = "", variables: dict[str, str] | None = None
    ) -> list[tuple[list[str], dict[str, str]]]:
        """The words and the environment of each command that a target ran."""
        self.record.unlink(missing_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment = {**kept, "RECORD": str(self.record), **(variables or {})}
        done = subprocess.run(["make", *words], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert error in done.stderr
        lines = self.record.read_text(encoding="utf-8").splitlines() if self.record.exists() else []
        return [(argv, environ) for argv, environ in map(json.loads, lines)]


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Project:
    return Project(root, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "variable", "word"), TARGETS)
def test_what_is_set_is_one_word_of_the_command_and_is_not_executed(
    target: str, variable: str, word: str, project: Project
) -> None:
    for value in HOSTILE:
        for words, variables in (([f"{variable}={value}"], {}), ([], {variable: value})):
            ran = project.make(target, *words, variables=variables)
            assert ran
            assert any(word.format(value) in argv for argv, _ in ran), value
            assert not (project.folder / "MARK").exists(), value


@pytest.mark.parametrize("target", WITH_ARGS)
def test_args_reach_what_splits_them_as_they_are(target: str, project: Project) -> None:
    for value in HOSTILE:
        ((argv, environ),) = project.make(target, f"ARGS={value}")
        assert argv[1:3] == ["-m", "tools.cli.make_args"]
        assert environ["ARGS"] == value
        assert not (project.folder / "MARK").exists(), value


@pytest.mark.parametrize("variable", ["MODEL", "PORT", "GPUS", "ENGINE"])
def test_what_docker_run_reads_reaches_it_as_it_is(variable: str, project: Project) -> None:
    for value in HOSTILE:
        ran = project.make("docker-serve", "IMAGE=cpu", f"{variable}={value}")
        assert [environ[variable] for _, environ in ran] == [value, value]
        assert not (project.folder / "MARK").exists(), value


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["TUNEPRESS_API_KEY", "BASE_IMAGE", "BASE_DIGEST", "PIP_INDEX_URL", "HF_TOKEN"])
def test_what_the_commands_read_from_the_environment_may_be_set_on_makes_command_line(variable: str, project: Project) -> None:
    for value in (*HOSTILE, "se$cret$(shell touch MARK)"):
        for words, variables in (([f"{variable}={value}"], {}), ([], {variable: value})):
            ran = project.make("docker-serve", "IMAGE=cpu", *words, variables=variables)
            assert [environ[variable] for _, environ in ran] == [value, value]
            assert not (project.folder / "MARK").exists(), value


def test_a_text_to_predict_is_not_evaluated(project: Project) -> None:
    for value in HOSTILE:
        ((_, environ),) = project.make("predict", f"TEXT={value}")
        assert environ["TUNEPRESS_TEXT"] == value
        assert not (project.folder / "MARK").exists(), value


def test_python_is_a_program_and_venv_a_path(project: Project) -> None:
    (project.folder / ".venv/.cpu").unlink()
    assert project.make("setup", f"PYTHON={project.folder}/python")[0][0][0] == f"{project.folder}/python"
    for value in HOSTILE:
        (project.folder / ".venv/.cpu").unlink(missing_ok=True)
        project.make("setup", f"PYTHON={value}", code=2)
    for value in (*HOSTILE, *HOSTILE_PATHS):
        for target in ("setup", "clean"):
            project.make(target, f"VENV={value}", code=2, error="VENV: must be ")
            project.make(target, variables={"VENV": value}, code=2, error="VENV: must be ")
    assert not (project.folder / "MARK").exists()


def test_what_is_not_set_is_not_there(project: Project) -> None:
    ((argv, _),) = project.make("exp-show")
    assert argv[1:] == ["-m", "tools.cli.experiments"]
    ((argv, _),) = project.make("doctor")
    assert argv[1:] == ["-m", "tools.cli.make_args", "tools.doctor"]
    *_, (argv, environ) = project.make("docker-train")
    assert argv[1:] == ["train", "cuda13", "dvc", "exp", "run", "-S", "environment=cuda13"]
    assert (environ["ENGINE"], environ["GPUS"]) == ("docker", "all")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("", []),
        ("--port 8080  --name 'a b'", ["--port", "8080", "--name", "a b"]),
        ('compute="it\'s" x\\ y', ["compute=it's", "x y"]),
        ("x; touch MARK $(touch MARK) > MARK *", ["x;", "touch", "MARK", "$(touch", "MARK)", ">", "MARK", "*"]),
    ],
)
def test_args_are_words_as_a_shell_splits_them(args: str, words: list[str], root: Path, tmp_path: Path) -> None:
    (tmp_path / "shows.py").write_text("import sys, json; print(json.dumps(sys.argv[1:]))\n", encoding="utf-8")
    environment = {**os.environ, "ARGS": args, "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"}
    command = [sys.executable, "-m", "tools.cli.make_args", "shows", "first"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["first", *words]
    assert not (tmp_path / "MARK").exists()


def test_args_with_an_open_quote_are_refused_in_one_line(root: Path) -> None:
    command = [sys.executable, "-m", "tools.cli.make_args", "tools.serve"]
    done = subprocess.run(command, cwd=root, env={**os.environ, "ARGS": "--name 'x"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "ARGS: No closing quotation\n")
