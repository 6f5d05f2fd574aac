"""The locks: complete, exact, and one onnxruntime only."""

import re
from pathlib import Path

import pytest


def pins(path: Path) -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([^ ;]+).*", line) for line in lines if line and not line.startswith("-c")]
    assert all(found), f"{path}: a line that pins nothing"
    return {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for match in found if match}


@pytest.mark.parametrize("name", ["cpu", "dev", "search", "serve"])
def test_the_lock_holds_what_was_asked_for(name: str, root: Path) -> None:
    asked, locked = pins(root / f"requirements/{name}.in"), pins(root / f"requirements/{name}.txt")
    assert asked.items() <= locked.items()


@pytest.mark.parametrize("name", ["dev", "search", "serve"])
def test_a_further_lock_agrees_with_the_cpu_lock(name: str, root: Path) -> None:
    cpu, further = pins(root / "requirements/cpu.txt"), pins(root / f"requirements/{name}.txt")
    both = further.keys() & cpu.keys()
    assert {package: further[package] for package in both} == {package: cpu[package] for package in both}


def test_the_cpu_lock_has_nothing_of_cuda(root: Path) -> None:
    unwanted = r"nvidia-(?!ml-py)|cuda|triton|onnxruntime-gpu|onnxruntime-genai-cuda"  # nvidia-ml-py: DVCLive asks for it
    assert not [name for name in pins(root / "requirements/cpu.txt") if re.match(unwanted, name)]
