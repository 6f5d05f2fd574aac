"""Python, the packages of the environment's lock, git and DVC."""

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

TIMEOUT = 20  # seconds for git


def findings(recipe: Recipe) -> Iterator[Finding]:
    yield python()
    yield packages(recipe.params.environment.lock)
    yield git()
    yield dvc()
    yield composed()


def python() -> Finding:
    return ok("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def packages(lock: str) -> Finding:
    """Compares the installed packages with the lock, as every stage does first."""
    try:
        environment.check(lock)
    except InputError as problem:
        detail, _, advice = str(problem).partition("; ")
        return error("packages", detail, advice)
    installed = environment.installed_versions()
    names = ", ".join(f"{name} {installed[name]}" for name in ("torch", "transformers", "onnxruntime-genai") if name in installed)
    return ok("packages", f"as in {lock} ({names})")


def git() -> Finding:
    """The repository, which DVC and DVCLive need, with a commit."""
    if shutil.which("git") is None:
        return warning("git", "not installed", "install it; experiments, queues and `make search` need it")
    repository = run_git("rev-parse", "--git-dir")
    if repository.returncode:
        owned = "dubious ownership" in repository.stderr
        trust = "run as the folder's owner, or git config --global --add safe.directory and the folder"
        return error("git", "another user's repository" if owned else "no repository", trust if owned else "git init; git commit")
    commit = run_git("rev-parse", "--short", "--verify", "HEAD")
    if commit.returncode:
        return error("git", "a repository without a commit", "git add --all; git commit")
    changed = len(run_git("status", "--porcelain").stdout.splitlines())
    advice = "commit them before `dvc exp run --queue` or `make search`, which only use commits" if changed else "nothing to do"
    return ok("git", f"at {commit.stdout.strip()}, changed files: {changed}", advice)


def run_git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=TIMEOUT)


def dvc() -> Finding:
    version = metadata.version("dvc")
    if not Path(".dvc").is_dir():
        return error("DVC", f"{version}, but no .dvc in this folder", "run in the root of a complete clone")
    return ok("DVC", version)


def composed() -> Finding:
    """Whether params.yaml is composed from the current conf/, which `make repro` does and `dvc repro` does not."""
    if not PARAMS.exists() or not COMPOSED.exists() or compose_conf([]) != COMPOSED.read_text(encoding="utf-8"):
        return warning("params.yaml", "older than conf/", "make params; `make repro` and `dvc exp run` do it automatically")
    if PARAMS.read_bytes() != COMPOSED.read_bytes():
        return ok("params.yaml", "your choice, different from conf/", "make params RESET=1 drops it")
    return ok("params.yaml", "composed from conf/")
