"""The locks: complete, exact, and one onnxruntime only."""

import os
import re
import subprocess
from itertools import combinations
from pathlib import Path

import pytest

from tests.docker.tools import program

ANYWHERE = ["cpu", "dev", "search", "harness", "serve", "azure"]  # for any system; the others are for NVIDIA GPUs on x86-64 Linux
ON_LINUX = ["cuda13", "cuda12", "serve-cuda13", "serve-cuda12"]


def pins(path: Path) -> dict[str, str]:
    """The versions that a file pins, and those of the files that it includes."""
    pinned: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        requirement = line.split("#")[0].strip()
        if requirement.startswith("-r "):
            pinned |= pins(path.with_name(requirement.removeprefix("-r ")))
        elif requirement and not requirement.startswith("-c "):
            match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==([^ ;]+).*", requirement)
            assert match, f"{path}: {line} pins nothing"
            pinned[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    return pinned


@pytest.mark.parametrize("name", ANYWHERE + ON_LINUX)
def test_the_lock_holds_what_was_asked_for(name: str, root: Path) -> None:
    direct, locked = pins(root / f"requirements/{name}.in"), pins(root / f"requirements/{name}.txt")
    assert direct.items() <= locked.items()


@pytest.mark.parametrize(("name", "other"), combinations(ANYWHERE, 2))
def test_locks_of_one_environment_agree(name: str, other: str, root: Path) -> None:
    first, second = pins(root / f"requirements/{name}.txt"), pins(root / f"requirements/{other}.txt")
    both = first.keys() & second.keys()
    assert {package: first[package] for package in both} == {package: second[package] for package in both}


@pytest.mark.parametrize("name", ["cpu", "serve"])
def test_a_lock_without_a_gpu_has_nothing_of_cuda(name: str, root: Path) -> None:
    unwanted = r"nvidia-(?!ml-py)|cuda|triton|onnxruntime-gpu|onnxruntime-genai-cuda"  # nvidia-ml-py: DVCLive asks for it
    assert not [package for package in pins(root / f"requirements/{name}.txt") if re.match(unwanted, package)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_LINUX)
def test_the_resolver_finds_a_lock_for_a_gpu_complete(name: str, root: Path, tmp_path: Path) -> None:
    """It reads metadata only; nothing of CUDA is downloaded or installed."""
    command = [program("uv"), "pip", "compile", "--quiet", "--no-annotate", "--no-header", "--python-version", "3.11"]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--constraint", f"{name}.txt", f"{name}.in"]
    done = subprocess.run(command, cwd=root / "requirements", capture_output=True, text=True, timeout=300)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    (tmp_path / "again.txt").write_text(done.stdout, encoding="utf-8")
    assert pins(tmp_path / "again.txt") == pins(root / f"requirements/{name}.txt")
