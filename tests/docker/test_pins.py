"""docker/versions.env is what the locks, the Dockerfiles, compose and the Makefile say too."""

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from yaml import safe_load  # type: ignore[import-untyped]

from tests.docker.tools import pins
from tunepress.core.environment import locked_versions
from tunepress.inference.providers import REQUIREMENTS

LOCKS = {  # an environment's pins by the packages that they are of, and the lock that has them
    "cpu": ("CPU", {"TORCH": "torch", "ONNXRUNTIME": "onnxruntime", "ONNXRUNTIME_GENAI": "onnxruntime-genai"}),
    "serve": ("CPU", {"ONNXRUNTIME": "onnxruntime", "ONNXRUNTIME_GENAI": "onnxruntime-genai"}),
    "cuda13": (
        "CUDA13",
        {
            "TORCH": "torch",
            "ONNXRUNTIME_GPU": "onnxruntime-gpu",
            "ONNXRUNTIME_GENAI_CUDA": "onnxruntime-genai-cuda",
            "CUDA": "nvidia-cuda-runtime",
            "CUDNN": "nvidia-cudnn-cu13",
        },
    ),
    "serve-cuda13": (
        "CUDA13",
        {
            "ONNXRUNTIME_GPU": "onnxruntime-gpu",
            "ONNXRUNTIME_GENAI_CUDA": "onnxruntime-genai-cuda",
            "CUDA": "nvidia-cuda-runtime",
            "CUDNN": "nvidia-cudnn-cu13",
        },
    ),
    "cuda12": (
        "CUDA12",
        {
            "TORCH": "torch",
            "ONNXRUNTIME": "onnxruntime",
            "ONNXRUNTIME_GENAI": "onnxruntime-genai",
            "CUDA": "nvidia-cuda-runtime-cu12",
            "CUDNN": "nvidia-cudnn-cu12",
        },
    ),
    "serve-cuda12": (
        "CUDA12",
        {
            "ONNXRUNTIME_GPU": "onnxruntime-gpu",
            "ONNXRUNTIME_GENAI_CUDA": "onnxruntime-genai-cuda",
            "CUDA": "nvidia-cuda-runtime-cu12",
            "CUDNN": "nvidia-cudnn-cu12",
        },
    ),
}
CUDA = [name for name in LOCKS if "cuda" in name]
FILES = {"train": ("cpu", "cuda13", "cuda12"), "serve": ("serve", "serve-cuda13", "serve-cuda12")}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_the_pinned_versions(name: str, root: Path) -> None:
    prefix, packages = LOCKS[name]
    pinned, lock = pins(root), locked_versions(f"requirements/{name}.txt")
    assert {key: lock.get(package) for key, package in packages.items()} == {key: pinned[f"{prefix}_{key}"] for key in packages}


def test_every_pin_is_of_a_lock_or_of_the_base(root: Path) -> None:
    held = {f"{prefix}_{key}" for prefix, packages in LOCKS.values() for key in packages}
    assert pins(root).keys() - held == {"BASE_IMAGE", "BASE_DIGEST", "PYTHON", "UV", "CUDA13_DRIVER", "CUDA12_DRIVER"}


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_has_two_builds_of_a_runtime(name: str) -> None:
    lock = locked_versions(f"requirements/{name}.txt")
    assert len(lock.keys() & {"onnxruntime", "onnxruntime-gpu"}) == 1
    assert len(lock.keys() & {"onnxruntime-genai", "onnxruntime-genai-cuda"}) == 1


@pytest.mark.parametrize("name", CUDA)
def test_a_lock_has_one_cuda_only(name: str) -> None:
    other = r"nvidia-.*-cu12$|.*-cu12$" if "13" in name else r"nvidia-.*-cu13$|cuda-toolkit$|nvidia-cuda-runtime$"
    assert not [package for package in locked_versions(f"requirements/{name}.txt") if re.match(other, package)]


@pytest.mark.parametrize("name", ["serve", "serve-cuda13", "serve-cuda12"])
def test_what_serves_has_no_torch_and_the_versions_of_what_trains(name: str) -> None:
    trained_by = name.removeprefix("serve").strip("-") or "cpu"
    serves, trains = locked_versions(f"requirements/{name}.txt"), locked_versions(f"requirements/{trained_by}.txt")
    assert "torch" not in serves
    both = serves.keys() & trains.keys()
    assert {package: serves[package] for package in both} == {package: trains[package] for package in both}


def test_the_libraries_that_the_cuda_runtimes_load_are_locked() -> None:
    """Those that the libraries of onnxruntime-gpu and onnxruntime-genai-cuda name as NEEDED, which preload_dlls() looks for."""
    wheels = {"cublas", "cuda-nvrtc", "cuda-runtime", "cufft", "curand"}
    for name, suffix in (("cuda13", ""), ("serve-cuda13", ""), ("serve-cuda12", "-cu12")):
        assert {f"nvidia-{wheel}{suffix}" for wheel in wheels} <= locked_versions(f"requirements/{name}.txt").keys()


def test_the_base_has_a_date_and_a_whole_digest_or_none(root: Path) -> None:
    pinned = pins(root)
    assert re.fullmatch(r"debian:bookworm-\d{8}-slim", pinned["BASE_IMAGE"])
    assert re.fullmatch(r"(sha256:[0-9a-f]{64})?", pinned["BASE_DIGEST"])


@pytest.mark.parametrize("name", FILES)
def test_a_dockerfile_has_the_same_base_and_no_other_pin(name: str, root: Path) -> None:
    code = (root / f"docker/{name}.Dockerfile").read_text(encoding="utf-8")
    assert f"ARG BASE_IMAGE={pins(root)['BASE_IMAGE']}\n" in code
    assert re.findall(r"==\d", code) == []
    froms = re.findall(r"^FROM (\S+)", code, flags=re.MULTILINE)
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", code, flags=re.MULTILINE))
    assert set(froms) - stages == {"${BASE_IMAGE}"} | ({"scratch"} if name == "train" else set())


@pytest.mark.parametrize("name", FILES)
def test_an_image_tells_its_revision_and_versions(name: str, root: Path) -> None:
    code = (root / f"docker/{name}.Dockerfile").read_text(encoding="utf-8")
    labels = dict(re.findall(r'([a-z][a-z0-9.-]+)="(\$\{\w+\})"', code[code.index("LABEL") :]))
    names = [
        "python",
        "onnxruntime",
        "onnxruntime-genai",
        "cuda",
        "cudnn",
        "driver",
        "lock",
        *(["torch"] if name == "train" else []),
    ]
    assert {f"tunepress.{name}" for name in names} <= labels.keys()
    assert labels["org.opencontainers.image.revision"] == "${REVISION}"
    assert labels["org.opencontainers.image.version"] == "${VERSION}"
    declared = set(re.findall(r"^ARG (\w+)", code, flags=re.MULTILINE))
    assert {value.strip("${}") for value in labels.values()} <= declared


def test_the_dockerfiles_want_nothing_that_podman_lacks(root: Path) -> None:
    for path in (root / "docker").glob("*.Dockerfile"):
        code = path.read_text(encoding="utf-8")
        assert "sharing=locked" not in code
        assert "<<" not in code


def test_compose_builds_from_the_pins(root: Path) -> None:
    text = (root / "docker/compose.yaml").read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{((?:CPU|CUDA\d+|BASE)_\w+)", text))
    assert used <= pins(root).keys()
    assert not re.findall(r"\d+\.\d+\.\d+(?!\.)(?<!127\.0\.0)", text.replace("127.0.0.1", ""))


def test_an_environment_of_the_configuration_is_an_image(root: Path) -> None:
    groups = {path.stem: OmegaConf.load(path).lock for path in (root / "conf/environment").glob("*.yaml")}
    assert groups == {name: f"requirements/{name}.txt" for name in FILES["train"]}
    build = (root / "docker/build").read_text(encoding="utf-8")
    assert re.search(r"^docker-%: export IMAGE \?= cuda13$", (root / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for name in groups:
        assert f"train-{name}" in build


def test_the_cpu_lock_leaves_out_what_only_a_cuda_build_of_torch_wants(root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8").replace("\\\n", "")
    listed = set(re.findall(r"^CUDA_ONLY := (.*)$", makefile, flags=re.MULTILINE)[0].split())
    of_cuda = {package for package in locked_versions("requirements/cuda13.txt") if re.match(r"cuda|nvidia|triton", package)}
    assert of_cuda - locked_versions("requirements/cpu.txt").keys() == listed


def test_what_a_cuda_model_is_said_to_need_is_what_is_pinned(root: Path) -> None:
    assert f"driver {pins(root)['CUDA13_DRIVER']} or newer" in REQUIREMENTS["cuda"]


def test_what_installs_is_what_has_resolved_the_locks(root: Path) -> None:
    assert pins(root)["UV"] == locked_versions("requirements/dev.txt")["uv"]


def test_python_is_that_of_the_project_and_of_the_locks(root: Path) -> None:
    python = pins(root)["PYTHON"]
    assert f"--python-version {python} " in (root / "Makefile").read_text(encoding="utf-8")
    assert f'requires-python = ">={python}"' in (root / "pyproject.toml").read_text(encoding="utf-8")


def test_the_job_takes_the_default_image(root: Path) -> None:
    job: Any = safe_load((root / "docker/kubernetes-job.yaml").read_text(encoding="utf-8"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith("/tunepress-train@sha256:DIGEST")
    assert "environment=cuda13" in container["command"][-1]
    assert f"driver {pins(root)['CUDA13_DRIVER']} or newer" in (root / "docker/kubernetes-job.yaml").read_text(encoding="utf-8")
