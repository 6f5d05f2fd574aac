"""Runs trials as DVC experiments in a clone of the project, and copies the experiments to the project.

`dvc exp run --temp` would do nearly the same, but it stashes and resets the user's working tree before every trial, and a
kill at that moment leaves it so. A clone does not touch the working tree, stays at one commit while the user works on,
and keeps `.checkpoints/`, so that a killed training resumes. It shares git's objects and DVC's cache with the project, so that
no model is trained twice.
"""

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo

from tools.search.metrics import Metrics, metrics_of
from tunepress.core.errors import InputError, one_line
from tunepress.core.files import remove
from tunepress.core.params import compose_conf, read_yaml
from tunepress.core.pipeline import shipped_answers

# What trials read from the project, all of which must be committed. Stages write the other files, or do not read them.
READ = ["conf", "data", "dvc.yaml", "hydra_plugins", "requirements/cpu.txt", "stages", "tunepress", "*.dvc"]
NOT_READ = [":!conf/search", ":!conf/composed.yaml"]
CHECKPOINTS = ".checkpoints"
GRACE = 30  # seconds that an interrupted stage has to exit by itself


class Clone:
    """The clone of one search, at one commit of the project."""

    def __init__(self, search: str, folder: Path, measured_here: list[str]) -> None:
        """Creates the clone, and collects experiments that a killed search has left in an earlier one.

        Raises:
            InputError: a file that trials read is not committed.
        """
        self.search, self.folder, self.measured_here = search, folder, measured_here
        changed = git("status", "--porcelain", "--", *READ, *NOT_READ).splitlines()
        if changed:
            more = f" and {len(changed) - 1} more" if changed[1:] else ""
            raise InputError(f"{changed[0][3:]}{more}: not committed, and trials run what is committed; commit or stash it")
        self.commit = git("rev-parse", "HEAD")
        self.logs = folder.parent / "log"
        with contextlib.suppress(subprocess.CalledProcessError):  # there is no clone, or an incomplete one
            self.collect()
        self.make()

    def name_of(self, overrides: list[str]) -> str:
        """The name of the experiment: that of the search and a hash of the params.yaml that the overrides compose."""
        try:
            recipe = self.compose(overrides)
        except InputError:
            recipe = " ".join(overrides)
        return f"{self.search}-{hashlib.sha256(recipe.encode()).hexdigest()[:7]}"

    def compose(self, overrides: list[str]) -> str:
        """Composes the params.yaml of a recipe from the clone's conf/, which stays the same while the user edits the project.

        Raises:
            InputError: it does not compose.
        """
        with contextlib.chdir(self.folder):
            return compose_conf(overrides)

    def metrics(self, name: str) -> Metrics:
        """The metrics of an experiment of this commit; empty if it does not exist.

        Raises:
            InputError: a file of metrics in dvc.yaml is missing or broken.
        """
        revision = self.revision(name)
        try:
            return metrics_of(revision) if revision else {}
        except (DvcException, OSError, ValueError) as error:  # raised when a file is read
            raise InputError(f"its metrics cannot be read ({one_line(error)}); `dvc exp remove {name}` and try again") from error

    def answers(self, name: str) -> list[dict[str, str]]:
        """The predictions of an experiment's int4 model; empty if they are not in the cache."""
        revision = self.revision(name)
        return shipped_answers(revision) if revision else []

    def run(self, name: str, overrides: list[str], message: str, on_stage: Callable[[str], None], lock: IO[str]) -> None:
        """Runs a recipe as the experiment `name`.

        Args:
            name: of the experiment.
            overrides: of conf/, as in `dvc exp run -S`.
            message: of the experiment's commit.
            on_stage: called with the name of each stage that runs.
            lock: an open, locked file that DVC inherits, so that the lock is held while DVC runs, even if this process is killed.

        Raises:
            InputError: the recipe does not compose, or a stage failed.
        """
        self.compose(overrides)
        self.make()
        options = [argument for override in overrides for argument in ("-S", override)]
        command = [sys.executable, "-m", "dvc", "exp", "run", "--name", name, "--message", message, *options]
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("w", encoding="utf-8", buffering=1) as file, child(command, self.folder, lock) as process:
            assert process.stdout
            for line in process.stdout:
                file.write(line)
                if match := re.match(r"Running stage '([^']+)'", line):
                    on_stage(match[1])
        self.collect()
        if process.returncode:
            raise InputError(f"{reason(log, process.returncode)} ({log})")

    def make(self) -> None:
        """Recreates the clone; of what a killed trial has left there, only the checkpoints are kept."""
        kept = self.folder.with_name("checkpoints")
        if (self.folder / CHECKPOINTS).exists():
            remove(kept)
            (self.folder / CHECKPOINTS).rename(kept)
        remove(self.folder)
        git("clone", "--quiet", "--shared", "--no-checkout", ".", str(self.folder))
        git("checkout", "--quiet", "--detach", self.commit, folder=self.folder)
        for key in ("user.name", "user.email"):  # DVC commits an experiment, and git may have no user here
            known = subprocess.run(["git", "config", key], capture_output=True, text=True, check=False).stdout.strip()
            git("config", key, known or "search@tunepress", folder=self.folder)
        (self.folder / ".dvc/config.local").touch(mode=0o600)  # it may contain keys, and DVC would make it readable for others
        with Repo() as project, Repo(str(self.folder)) as clone, clone.config.edit("local") as local:
            local.update(project.config.read("local"))
            local["cache"] |= {"dir": project.cache.local_cache_dir}
        self.forget_measurements()
        if kept.exists():
            kept.rename(self.folder / CHECKPOINTS)

    def forget_measurements(self) -> None:
        """Removes the committed measurements of another machine, and their stages from dvc.lock.

        Measurements of this machine come from the run cache, others are made again.
        """
        for path in self.measured_here:
            remove(self.folder / path)
        lock = self.folder / "dvc.lock"
        if lock.exists():
            text = lock.read_text(encoding="utf-8")
            for name, stage in read_yaml(lock)["stages"].items():
                if self.measures(stage):
                    text = re.sub(rf"(?m)^  {re.escape(name)}:\n(?:    .*\n|\n)*", "", text)
            lock.write_text(text, encoding="utf-8")

    def measures(self, stage: dict[str, Any]) -> bool:
        """Whether an output of a stage of dvc.lock is a measurement of the machine."""
        return any(Path(out["path"]).is_relative_to(path) for out in stage.get("outs", []) for path in self.measured_here)

    def collect(self) -> None:
        """Copies the experiments of the search to the project."""
        pattern = self.ref(f"{self.search}-*")
        git("fetch", "--quiet", "--no-tags", str(self.folder), f"{pattern}:{pattern}")

    def revision(self, name: str) -> str:
        """The commit of an experiment; empty if it does not exist."""
        return git("for-each-ref", "--format=%(objectname)", self.ref(name))

    def ref(self, name: str) -> str:
        """The git reference of an experiment of this commit."""
        return str(ExpRefInfo(self.commit, name))


def git(*command: str, folder: Path = Path()) -> str:
    done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.rstrip("\n")


@contextlib.contextmanager
def child(command: list[str], folder: Path, lock: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """Runs a command in its own session, so that an interruption reaches it once, from here, with all its children."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
        pass_fds=[lock.fileno()],
    ) as process:
        try:
            yield process
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
                os.killpg(process.pid, signal.SIGKILL)
            raise


def reason(log: Path, code: int) -> str:
    """The line of a trial's output with the reason why it failed."""
    if code < 0:
        return f"killed by signal {-code}"
    lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or ["no error message"]
    stage = re.search(r"failed to reproduce '(\w+)", "\n".join(errors))
    messages = [line for line in lines if stage and re.match(rf"{stage[1]}\w*: ", line)]
    return textwrap.shorten((messages or errors)[-1].removeprefix("ERROR: "), 160, placeholder=" ...")
