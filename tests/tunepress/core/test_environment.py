"""The environment: what is installed is what the lock says, or a stage ends in one line; and the image that a run names."""

import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from tunepress.core import environment
from tunepress.core.environment import IMAGE, PACKAGES, check, current_image, locked_versions
from tunepress.core.errors import InputError

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.fixture
def lock(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Makes a copy of the CPU lock in a project of its own, with some lines changed."""
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    text = (root / "requirements/cpu.txt").read_text(encoding="utf-8")

    def edited(*changes: tuple[str, str]) -> str:
        changed = text
        for old, new in changes:
            assert old in changed
            changed = changed.replace(old, new)
        (tmp_path / "lock.txt").write_text(changed, encoding="utf-8")
        return "lock.txt"

    return edited


def refused(lock: str) -> str:
    with pytest.raises(InputError) as raised:
        check(lock)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_installed_here_is_what_the_cpu_lock_says() -> None:
    check("requirements/cpu.txt")


def test_a_build_of_the_same_version_is_the_same(lock: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: real(name).partition("+")[0] + ("+cu130" if name == "torch" else ""))
    check(lock())


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("torch==2.13.0\n", "torch==2.9.1\n", "lock.txt: says torch 2.9.1, but 2.13.0"),
        ("onnxruntime==1.32.0\n", "onnxruntime==1.33.0\n", "lock.txt: says onnxruntime 1.33.0, but 1.32.0 is installed; "),
        ("onnxruntime-genai==", "onnxruntime-genai-cuda==", "lock.txt: has no onnxruntime-genai, but 0.18.0 is installed; "),
        ("tqdm==", "onnxruntime-gpu==1.31.1\ntqdm==", "lock.txt: says onnxruntime-gpu 1.31.1, but none is installed; "),
    ],
)
def test_another_version_or_package_is_named_with_the_cure(lock: Callable[..., str], old: str, new: str, expected: str) -> None:
    message = refused(lock((old, new)))
    assert message.startswith(expected)
    assert "-S environment=" in message


def test_a_package_that_decides_nothing_may_differ(lock: Callable[..., str]) -> None:
    check(lock(("\ntqdm==", "\ntqdm==0.1\n#")))


def test_a_line_for_another_machine_does_not_count(lock: Callable[..., str]) -> None:
    check(lock(("torch==2.13.0\n", "torch==2.13.0\ntorch==1.0 ; sys_platform == 'never'\n")))


def test_a_lock_that_is_not_there_is_named() -> None:
    assert refused("requirements/cuda99.txt").startswith("environment.lock: requirements/cuda99.txt not found; ")


@pytest.mark.parametrize("name", ["cpu", "cuda13", "cuda12"])
def test_an_environment_names_a_lock_that_pins_what_decides(name: str, root: Path) -> None:
    path = (root / f"conf/environment/{name}.yaml").read_text(encoding="utf-8").partition("lock: ")[2].strip()
    runtimes = {"onnxruntime", "onnxruntime-genai"} if name != "cuda13" else {"onnxruntime-gpu", "onnxruntime-genai-cuda"}
    assert locked_versions(path).keys() >= {"torch", "transformers", "peft", *runtimes}
    assert {package for package in locked_versions(path) if package.startswith("onnxruntime")} == runtimes
    assert {package for package in PACKAGES if not package.startswith("onnxruntime")} <= locked_versions(path).keys()


def test_a_stage_ends_before_its_work_where_the_environment_is_another(root: Path) -> None:
    command = [sys.executable, "-m", "stages.gate", "environment.lock=requirements/cuda12.txt"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert done.stderr.startswith("gate: requirements/cuda12.txt: says torch 2.9.1, but 2.13.0")
    assert len(done.stderr.splitlines()) == 1


def test_a_run_outside_of_any_image_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(IMAGE, raising=False)
    assert current_image() is None


def test_a_run_in_an_image_names_it_shortly_and_its_digest_wholly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IMAGE, f"tunepress-train:cpu@{DIGEST}")
    assert current_image() == {"name": "tunepress-train:cpu@0123456789ab", "digest": DIGEST}
