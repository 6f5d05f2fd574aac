"""Runs trials as DVC experiments in a clone of the project, and brings the experiments home.

`dvc exp run --temp` would do nearly the same, but it stashes and resets the user's working tree before every trial, and a
kill at that moment leaves it so. A clone of our own never touches it, stays at one commit while the user goes on working,
and keeps `.checkpoints/`, so that a killed training goes on. It shares git's objects and DVC's cache with the project:
what was trained once is linked from there and not trained again.
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
from omegaconf import OmegaConf

from tools.search.figures import Figures, figures_of
from tunepress.core.errors import InputError, one_line
from tunepress.core.files import remove
from tunepress.core.params import compose_conf, read_yaml

# What a trial reads of the project; all of it must be committed. The others are made by the stages or of no matter to them.
READ = ["conf", "data", "dvc.yaml", "hydra_plugins", "requirements/cpu.txt", "stages", "tunepress", "*.dvc"]
NOT_READ = [":!conf/search", ":!conf/composed.yaml"]
CHECKPOINTS = ".checkpoints"
PATIENCE = 30  # seconds that an interrupted stage has to end by itself


class Clone:
    """The clone of one search, at one commit of the project."""

    def __init__(self, search: str, folder: Path, measured_here: list[str]) -> None:
        """Takes over experiments that a killed search has finished and not brought home.

        Raises:
            InputError: what a trial reads is not committed.
        """
        self.search, self.folder, self.measured_here = search, folder, measured_here
        changed = git("status", "--porcelain", "--", *READ, *NOT_READ).splitlines()
        if changed:
            more = f" and {len(changed) - 1} more" if changed[1:] else ""
            raise InputError(f"{changed[0][3:]}{more}: not committed, and trials run what is committed; commit or stash it")
        self.commit = git("rev-parse", "HEAD")
        self.logs = folder.parent / "log"
        with contextlib.suppress(subprocess.CalledProcessError):  # there is no clone, or half of one
            self.collect()
        self.make()

    def name_of(self, overrides: list[str]) -> str:
        """The experiment's name of a recipe: the search's name and a hash of the params.yaml that the overrides give."""
        try:
            recipe = self.compose(overrides)
        except InputError:
            recipe = " ".join(overrides)
        return f"{self.search}-{hashlib.sha256(recipe.encode()).hexdigest()[:7]}"

    def compose(self, overrides: list[str]) -> str:
        """The params.yaml of a recipe, composed from the clone's conf/, whatever the user does to his own meanwhile.

        Raises:
            InputError: the values do not go together.
        """
        with contextlib.chdir(self.folder):
            return compose_conf(overrides)

    def figures(self, name: str) -> Figures:
        """The figures of an experiment of this commit; none where there is no such experiment.

        Raises:
            InputError: it lacks a file of metrics that dvc.yaml names, or that is broken.
        """
        revision = git("for-each-ref", "--format=%(objectname)", self.ref(name))
        try:
            return figures_of(revision) if revision else {}
        except (DvcException, OSError, ValueError) as error:  # what reading a file raises
            raise InputError(f"its metrics cannot be read ({one_line(error)}); `dvc exp remove {name}` forgets them") from error

    def run(self, name: str, overrides: list[str], message: str, stage: Callable[[str], None], held: IO[str]) -> None:
        """Runs a recipe as the experiment `name`.

        Args:
            name: of the experiment.
            overrides: of conf/, as `dvc exp run -S` takes them.
            message: of the experiment's commit.
            stage: is told the name of each stage that runs.
            held: an open, locked file, which DVC inherits: the lock is held as long as DVC runs, whatever becomes of us.

        Raises:
            InputError: the values do not go together, or a stage failed.
        """
        self.compose(overrides)
        self.make()
        chosen = [argument for override in overrides for argument in ("-S", override)]
        command = [sys.executable, "-m", "dvc", "exp", "run", "--name", name, "--message", message, *chosen]
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("w", encoding="utf-8", buffering=1) as file, child(command, self.folder, held) as process:
            assert process.stdout
            for line in process.stdout:
                file.write(line)
                if found := re.match(r"Running stage '([^']+)'", line):
                    stage(found[1])
        self.collect()
        if process.returncode:
            raise InputError(f"{reason(log, process.returncode)} ({log})")

    def make(self) -> None:
        """Makes the clone anew: whatever a killed trial has left there is gone, but for the checkpoints of its training."""
        kept = self.folder.with_name("checkpoints")
        if (self.folder / CHECKPOINTS).exists():
            remove(kept)
            (self.folder / CHECKPOINTS).rename(kept)
        remove(self.folder)
        git("clone", "--quiet", "--shared", "--no-checkout", ".", str(self.folder))
        git("checkout", "--quiet", "--detach", self.commit, folder=self.folder)
        for key in ("user.name", "user.email"):  # DVC commits an experiment, and git may know nobody here
            known = subprocess.run(["git", "config", key], capture_output=True, text=True, check=False).stdout.strip()
            git("config", key, known or "search@tunepress", folder=self.folder)
        (self.folder / ".dvc/config.local").touch(mode=0o600)  # it may hold keys, and DVC would let others read it
        with Repo() as project, Repo(str(self.folder)) as clone, clone.config.edit("local") as local:
            local.update(project.config.read("local"))
            local["cache"] |= {"dir": project.cache.local_cache_dir}
        self.forget_measurements()
        if kept.exists():
            kept.rename(self.folder / CHECKPOINTS)

    def forget_measurements(self) -> None:
        """Removes the committed measurements of another machine, and their stages from dvc.lock: what was measured here and is
        in the run cache is taken from there, and the others are measured again.
        """
        for path in self.measured_here:
            remove(self.folder / path)
        lock = self.folder / "dvc.lock"
        if lock.exists():
            content = read_yaml(lock)
            content["stages"] = {name: stage for name, stage in content["stages"].items() if not self.measures(stage)}
            lock.write_text(OmegaConf.to_yaml(content), encoding="utf-8")

    def measures(self, stage: dict[str, Any]) -> bool:
        """Whether an output of a stage of dvc.lock is a measurement of the machine."""
        return any(Path(out["path"]).is_relative_to(path) for out in stage.get("outs", []) for path in self.measured_here)

    def collect(self) -> None:
        """Brings the experiments of the search home, into the project."""
        pattern = self.ref(f"{self.search}-*")
        git("fetch", "--quiet", "--no-tags", str(self.folder), f"{pattern}:{pattern}")

    def ref(self, name: str) -> str:
        """Where DVC keeps an experiment of this commit."""
        return str(ExpRefInfo(self.commit, name))


def git(*command: str, folder: Path = Path()) -> str:
    """What a git command prints."""
    done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.rstrip("\n")


@contextlib.contextmanager
def child(command: list[str], folder: Path, held: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """A process of a session of its own, which an interruption reaches through us, once and with all its children."""
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
        pass_fds=[held.fileno()],
    ) as process:
        try:
            yield process
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
                os.killpg(process.pid, signal.SIGKILL)
            raise


def reason(log: Path, code: int) -> str:
    """The line in which a trial's output says why it failed."""
    if code < 0:
        return f"killed by signal {-code}"
    lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or ["no error message"]
    stage = re.search(r"failed to reproduce '(\w+)", "\n".join(errors))
    said = [line for line in lines if stage and re.match(rf"{stage[1]}\w*: ", line)]
    return textwrap.shorten((said or errors)[-1].removeprefix("ERROR: "), 160, placeholder=" ...")
