"""What the programs say whose files these are: hadolint, ShellCheck, Docker's compose and Kubernetes' schemas."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from yaml import safe_load, safe_load_all  # type: ignore[import-untyped]

from tests.docker.tools import pins, program

SCRIPTS = ("build", "digests", "entry", "image", "install", "run")


def output(*command: str, root: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=root, env=os.environ | environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def compose(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """docker/compose.yaml as compose understands it."""
    home = tmp_path_factory.mktemp("home")
    command = [program("docker-compose"), "--env-file", "docker/versions.env", "-f", "docker/compose.yaml"]
    variables = {"PROJECT": "/home/me/project", "OWNER": "1234:5678", "HOME": str(home), "TUNEPRESS_API_KEY": "hush"}
    clean = {name: "" for name in os.environ if name.startswith(("BASE_", "HF_", "AZURE_"))}
    return json.loads(output(*command, "config", "--format", "json", root=root, **(clean | pins(root) | variables)))["services"]


@pytest.mark.parametrize("name", ["train", "serve"])
def test_hadolint_finds_nothing(name: str, root: Path) -> None:
    assert output(program("hadolint"), "--no-color", f"docker/{name}.Dockerfile", root=root) == ""


def test_shellcheck_finds_nothing(root: Path) -> None:
    assert output(program("shellcheck"), "--external-sources", *(f"docker/{name}" for name in SCRIPTS), root=root) == ""


@pytest.mark.parametrize("service", ["train", "repro-cpu", "serve", "serve-cpu"])
def test_compose_runs_as_the_owner_on_a_read_only_root(service: str, compose: Any) -> None:
    composed = compose[service]
    assert composed["user"] == "1234:5678"
    assert composed["read_only"] and composed["init"]
    assert composed["cap_drop"] == ["ALL"]
    assert any(place.startswith("/tmp:") for place in composed["tmpfs"])


@pytest.mark.parametrize("service", ["train", "repro-cpu"])
def test_compose_lays_the_project_and_the_caches_where_docker_run_does(service: str, compose: Any) -> None:
    mounted = {volume["target"]: volume["source"] for volume in compose[service]["volumes"]}
    assert mounted["/home/me/project"] == "/home/me/project" == compose[service]["working_dir"]
    assert set(mounted) == {"/home/me/project", "/home/tunepress/.cache/huggingface", "/home/tunepress/.azure"}
    assert compose[service]["environment"]["HOME"] == "/home/tunepress"


@pytest.mark.parametrize("service", ["serve", "serve-cpu"])
def test_compose_serves_the_model_to_this_machine_only(service: str, compose: Any) -> None:
    ((volume,), (port,)) = compose[service]["volumes"], compose[service]["ports"]
    assert (volume["source"], volume["target"], volume["read_only"]) == ("/home/me/project/models/onnx", "/model", True)
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "8080", 8080)


def test_compose_hands_the_key_to_what_serves_only(compose: Any) -> None:
    with_key = {name for name, service in compose.items() if "TUNEPRESS_API_KEY" in service["environment"]}
    assert with_key == {"serve", "serve-cpu"}
    assert all(compose[name]["environment"]["TUNEPRESS_API_KEY"] == "hush" for name in with_key)


def test_compose_asks_for_gpus_where_there_is_cuda(compose: Any) -> None:
    asking = {name for name, service in compose.items() if "deploy" in service}
    assert asking == {"train", "serve"}
    assert {name for name, service in compose.items() if "cuda13" in service["image"]} == asking


@pytest.mark.parametrize(
    ("service", "lock"), [("train", "cuda13"), ("repro-cpu", "cpu"), ("serve", "serve-cuda13"), ("serve-cpu", "serve")]
)
def test_compose_builds_what_docker_build_does(service: str, lock: str, compose: Any, root: Path) -> None:
    build, pinned = compose[service]["build"], pins(root)
    assert build["args"]["LOCK"] == lock
    assert build["args"]["BASE_IMAGE"] == "@".join(filter(None, (pinned["BASE_IMAGE"], pinned["BASE_DIGEST"])))
    assert (root / build["dockerfile"]).exists()


def test_the_job_is_one_that_kubernetes_takes(root: Path) -> None:
    output(program("kubernetes-validate"), "--strict", "docker/kubernetes-job.yaml", root=root)


def test_the_job_asks_for_a_gpu_and_no_privileges(root: Path) -> None:
    (job,) = safe_load_all((root / "docker/kubernetes-job.yaml").read_text(encoding="utf-8"))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    script = container["command"][-1]
    used, variables = set(re.findall(r"\$\{?(\w+)", script)), {variable["name"] for variable in container["env"]}
    assert {"REPOSITORY", "REVISION", "EXPERIMENT"} <= used & variables
    subprocess.run(["sh", "-n", "-c", script], check=True)


def test_the_build_context_is_a_list_of_what_may_come_in(root: Path) -> None:
    lines = [line for line in (root / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert not allowed & {".git", ".dvc", "models", "data", "data/prepared", ".env", "predictions"}
    for path in allowed:
        assert (root / path).exists(), path


def test_no_credential_is_named_in_what_is_built_or_mounted_into_an_image(root: Path) -> None:
    for path in (root / "docker").glob("*.Dockerfile"):
        code = path.read_text(encoding="utf-8")
        assert not re.search(r"(?i)^(ARG|ENV) .*(token|secret|password|key|index_url)", code, flags=re.MULTILINE)


def test_compose_and_the_job_name_no_secret_of_their_own(root: Path) -> None:
    for name in ("compose.yaml", "kubernetes-job.yaml"):
        text = (root / "docker" / name).read_text(encoding="utf-8")
        assert not re.search(r"(?i)(token|secret|password|connection_string): *\S*[a-z0-9+/]{16}", text)
    assert safe_load((root / "docker/compose.yaml").read_text(encoding="utf-8"))["services"].keys() >= {"train", "serve"}
