"""Python, the packages against the environment's lock, git and DVC."""

import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from tools.doctor.finding import Finding, error, ok, warning
from tools.doctor.recipe import Recipe
from tunepress.core import environment
from tunepress.core.errors import InputError
from tunepress.core.params import COMPOSED, PARAMS, compose_conf

SECONDS = 20  # that git gets


def look(recipe: Recipe) -> Iterator[Finding]:
    """All of them."""
    yield python()
    yield packages(recipe.params.environment.lock)
    yield git()
    yield dvc()
    yield composed()


def python() -> Finding:
    """The interpreter."""
    return ok("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def packages(lock: str) -> Finding:
    """What is installed, against the lock: the comparison that every stage begins with."""
    try:
        environment.check(lock)
    except InputError as wrong:
        found, _, advice = str(wrong).partition("; ")
        return error("packages", found, advice)
    there = environment.installed_versions()
    named = ", ".join(f"{name} {there[name]}" for name in ("torch", "transformers", "onnxruntime-genai") if name in there)
    return ok("packages", f"as {lock} says ({named})")


def git() -> Finding:
    """The repository, without which DVC does not run and DVCLive has no commit to begin from."""
    if shutil.which("git") is None:
        return warning("git", "not installed", "install it: experiments, queues and `make search` want it")
    inside = git_says("rev-parse", "--git-dir")
    if inside.returncode:
        owned = "dubious ownership" in inside.stderr
        trust = "run as the folder's owner, or git config --global --add safe.directory and the folder"
        return error("git", "another user's repository" if owned else "no repository", trust if owned else "git init; git commit")
    commit = git_says("rev-parse", "--short", "--verify", "HEAD")
    if commit.returncode:
        return error("git", "a repository without a commit", "git add --all; git commit")
    changed = len(git_says("status", "--porcelain").stdout.splitlines())
    advice = "commit them before `dvc exp run --queue` or `make search`, which see commits only" if changed else "nothing to do"
    return ok("git", f"at {commit.stdout.strip()}, changed files: {changed}", advice)


def git_says(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A git command in this folder."""
    return subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=SECONDS)


def dvc() -> Finding:
    """DVC and its project."""
    version = metadata.version("dvc")
    if not Path(".dvc").is_dir():
        return error("DVC", f"{version}, but no .dvc here", "run from the project's root, in a whole clone")
    return ok("DVC", version)


def composed() -> Finding:
    """Whether params.yaml follows conf/, which `make repro` sees to and `dvc repro` does not."""
    if not PARAMS.exists() or not COMPOSED.exists() or compose_conf([]) != COMPOSED.read_text(encoding="utf-8"):
        return warning("params.yaml", "older than conf/", "make params; `make repro` and `dvc exp run` do it by themselves")
    if PARAMS.read_bytes() != COMPOSED.read_bytes():
        return ok("params.yaml", "a choice of yours, not what conf/ gives", "make params RESET=1 drops it")
    return ok("params.yaml", "what conf/ gives")
