"""tools/azure/submit/image: what a node has installed."""

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.docker.tools import pins, program
from tests.test_requirements import pins as pinned
from tools.azure.submit.image import describe, requirements
from tools.azure.submit.settings import Environment
from tunepress.core.environment import PACKAGES, locked_versions
from tunepress.core.errors import InputError

LOCKS = ("cpu", "cuda12", "cuda13")
DOCKER = Environment(lock="cuda13", build="docker", dockerfile_path="Dockerfile", image=None, conda_file=None)
SEED = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04"


@pytest.fixture(autouse=True)
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_build_context_has_all_that_its_dockerfile_wants(lock: str, root: Path, tmp_path: Path) -> None:
    description = describe(replace(DOCKER, lock=lock), tmp_path)
    assert description == {"build": {"path": "context", "dockerfile_path": "Dockerfile"}}
    code = (tmp_path / "context/Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (\S+) ", code, flags=re.MULTILINE)
    assert {path.name for path in (tmp_path / "context").iterdir()} == {"Dockerfile", *copied}
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", code, flags=re.MULTILINE))
    pin = pins(root)
    assert arguments == {"BASE_IMAGE": f"{pin['BASE_IMAGE']}@{pin['BASE_DIGEST']}", "LOCK": lock, "UV": pin["UV"]}
    assert len(re.findall(r"^ARG", code, flags=re.MULTILINE)) == len(arguments)


def test_the_dockerfile_wants_no_buildkit_and_is_clean(root: Path) -> None:
    code = (root / "docker/azure.Dockerfile").read_text(encoding="utf-8")
    instructions = "".join(line for line in code.splitlines(keepends=True) if not line.startswith("#"))
    assert not re.search(r"--mount|<<|--from|--link|--chmod", instructions)
    assert f"ARG BASE_IMAGE={pins(root)['BASE_IMAGE']}\n" in code
    done = subprocess.run(
        [program("hadolint"), "--no-color", "docker/azure.Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""


@pytest.mark.parametrize("lock", LOCKS)
def test_the_packages_that_decide_are_the_lock_s(lock: str, tmp_path: Path) -> None:
    """The check that every stage begins with, and azure.txt's packages beside it."""
    (tmp_path / "requirements.txt").write_text("\n".join(requirements(lock)), encoding="utf-8")
    pins = pinned(tmp_path / "requirements.txt")
    locked = locked_versions(f"requirements/{lock}.txt")
    assert {name: pins.get(name) for name in PACKAGES} == {name: locked.get(name) for name in PACKAGES}
    assert pinned(Path("requirements/azure.txt")).items() <= pins.items()


@pytest.mark.slow
@pytest.mark.parametrize("lock", LOCKS)
def test_the_resolver_takes_the_two_locks_together(lock: str, tmp_path: Path) -> None:
    """It reads metadata only; nothing is downloaded or installed."""
    (tmp_path / "both.in").write_text("\n".join(requirements(lock)), encoding="utf-8")
    command = [program("uv"), "pip", "compile", "--quiet", "--no-header", "--python-version", "3.11", str(tmp_path / "both.in")]
    command += ["--python-platform", "x86_64-manylinux_2_28"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode and "No solution" not in done.stderr and not os.environ.get("CI"):
        pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def test_the_seed_s_image_gets_the_lock_as_a_conda_file(tmp_path: Path) -> None:
    description = describe(replace(DOCKER, lock="cpu", image=SEED, conda_file="lock"), tmp_path)
    assert description == {"image": SEED, "conda_file": "conda.yaml"}
    conda = yaml.safe_load((tmp_path / "conda.yaml").read_text(encoding="utf-8"))
    assert conda["dependencies"][:-1] == ["python=3.11", "git", "make", "pip"]
    assert conda["dependencies"][-1] == {"pip": requirements("cpu")}


def test_files_of_one_s_own_are_taken_from_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for key, environment in {
        "conda_file": replace(DOCKER, image=SEED, conda_file="mine.yaml"),
        "build": replace(DOCKER, build="mine"),
    }.items():
        with pytest.raises(InputError, match=f"azure.environment.{'dockerfile_path' if key == 'build' else key}: mine"):
            describe(environment, tmp_path / "job")
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/Dockerfile").touch()
    assert describe(replace(DOCKER, image=SEED, conda_file="mine.yaml"), tmp_path)["conda_file"] == str(tmp_path / "mine.yaml")
    assert describe(replace(DOCKER, build="mine"), tmp_path)["build"]["path"] == str(tmp_path / "mine")
    assert describe(replace(DOCKER, image="image:1"), tmp_path) == {"image": "image:1"}
