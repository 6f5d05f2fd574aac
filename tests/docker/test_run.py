"""docker/build and docker/run: what they ask of an engine. A stand-in writes it down, for no Docker engine and no GPU are here.

tests/docker/test_podman.py builds and runs the images.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docker.tools import pins

ENGINE = """#!/bin/sh
case "$1 $2" in
  "image inspect") case "$5" in *:absent) exit 1 ;; esac; echo "sha256:$(printf 'a%.0s' $(seq 64)) $PUSHED"; exit ;;
esac
printf '%s\\n' "$@" > "$SAID"
for argument; do case "$argument" in id=*) cat "${argument##*src=}" >> "$SAID.secrets" ;; esac; done
"""


class Host:
    """A machine with a project, a home and an engine that writes down what it is asked."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.project, self.home, self.said = folder / "project", folder / "home", folder / "said"
        (folder / "bin").mkdir(parents=True)
        for name in ("docker", "podman"):
            (folder / "bin" / name).write_text(ENGINE, encoding="utf-8")
            (folder / "bin" / name).chmod(0o755)
        shutil.copytree(root / "docker", self.project / "docker")
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(root / name, self.project)
        (self.project / ".dvc").mkdir()
        self.home.mkdir()
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = {"PATH": path, "HOME": str(self.home), "SAID": str(self.said), "PUSHED": ""}
        for command in (("init", "--quiet"), ("add", "--all"), ("-c", "user.name=t", "-c", "user.email=t", "commit", "-qm", "s")):
            subprocess.run(["git", *command], cwd=self.project, env=self.environment, check=True)

    def words(self, *command: str, **environment: str) -> list[str]:
        """What the engine was asked, word for word."""
        done = self.run(*command, **environment)
        assert done.returncode == 0, done.stderr
        self.complaints = done.stderr
        return self.said.read_text(encoding="utf-8").splitlines()

    def refused(self, *command: str) -> str:
        """What a command says that ends before the engine is asked to do anything."""
        done = self.run(*command)
        assert done.returncode == 1
        assert not self.said.exists()
        return done.stderr

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.said.unlink(missing_ok=True)
        arguments = self.environment | environment
        return subprocess.run(command, cwd=self.project, env=arguments, capture_output=True, text=True, timeout=60)

    def mounted(self, *command: str, **environment: str) -> list[str]:
        words = self.words(*command, **environment)
        return [words[at + 1] for at, word in enumerate(words) if word == "--volume"]


@pytest.fixture
def host(root: Path, tmp_path: Path) -> Host:
    return Host(root, tmp_path)


def follows(words: list[str], word: str) -> list[str]:
    return [words[at + 1] for at, other in enumerate(words) if other == word]


RUN = ("docker/run", "train", "cpu", "dvc", "repro")


def test_a_run_is_the_owners_on_a_read_only_root_and_ends_with_its_signals(host: Host) -> None:
    words = host.words(*RUN)
    status = host.project.stat()
    assert words[0] == "run"
    assert {"--rm", "--init", "--read-only"} <= set(words)
    assert follows(words, "--user") == [f"{status.st_uid}:{status.st_gid}"]
    assert follows(words, "--cap-drop") == ["ALL"]
    assert follows(words, "--workdir") == [str(host.project)]
    assert f"{host.project}:{host.project}" in follows(words, "--volume")
    assert words[-3:] == ["tunepress-train:cpu", "dvc", "repro"]


def test_a_run_tells_inside_which_image_it_is(host: Host) -> None:
    own, pushed = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    assert f"TUNEPRESS_IMAGE=tunepress-train:cpu@{own}" in host.words(*RUN)
    assert f"TUNEPRESS_IMAGE=tunepress-train:cpu@{own}" in host.words(*RUN, PUSHED=f"localhost/tunepress-train@{pushed}")
    assert f"TUNEPRESS_IMAGE=tunepress-train:cpu@{pushed}" in host.words(*RUN, PUSHED=f"registry.example.com/train@{pushed}")


def test_an_image_that_is_not_there_is_named_with_the_cure(host: Host) -> None:
    output = host.refused("docker/run", "train", "absent", "true")
    assert output == "docker/image: no image tunepress-train:absent; make docker-build IMAGE=absent\n"


@pytest.mark.parametrize(
    ("engine", "gpus", "option", "values"),
    [
        ("docker", "all", "--gpus", ["all"]),
        ("docker", "0,1", "--gpus", ['"device=0,1"']),
        ("podman", "all", "--device", ["nvidia.com/gpu=all"]),
        ("podman", "0,1", "--device", ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]),
    ],
)
def test_gpus_are_asked_for_in_the_words_of_the_engine(
    engine: str, gpus: str, option: str, values: list[str], host: Host
) -> None:
    assert follows(host.words(*RUN, ENGINE=engine, GPUS=gpus), option) == values
    assert follows(host.words(*RUN, ENGINE=engine), option) == []


def test_caches_and_logins_come_along_where_they_are(host: Host) -> None:
    assert host.mounted(*RUN)[1:] == [f"{host.home}/.cache/huggingface:/home/tunepress/.cache/huggingface"]
    cache = host.home.parent / "cache"
    for folder in (cache, host.home / ".azure", host.home / ".config/dvc", host.home / "hub"):
        folder.mkdir(parents=True)
    (host.project / ".dvc/config.local").write_text(
        f"['remote \"x\"']\n    url = /else\n[cache]\n    dir = {cache}\n", encoding="utf-8"
    )
    assert host.mounted(*RUN, HF_HOME=str(host.home / "hub"))[1:] == [
        f"{cache}:{cache}",
        f"{host.home}/.config/dvc:/home/tunepress/.config/dvc:ro",
        f"{host.home}/hub:/home/tunepress/.cache/huggingface",
        f"{host.home}/.azure:/home/tunepress/.azure",
    ]


def test_a_worktree_has_its_repository_beside_it(host: Host) -> None:
    other = host.project.parent / "worktree"
    subprocess.run(["git", "worktree", "add", "--quiet", other], cwd=host.project, env=host.environment, check=True)
    assert f"{host.project}/.git:{host.project}/.git" in host.mounted(str(other / "docker/run"), *RUN[1:])


def test_credentials_pass_by_name_and_their_values_stay_out_of_the_command(host: Host) -> None:
    words = host.words(*RUN, AZURE_CLIENT_SECRET="hush", HF_TOKEN="hush too", UNRELATED="1")
    assert {"AZURE_CLIENT_SECRET", "HF_TOKEN"} <= set(follows(words, "--env"))
    assert "UNRELATED" not in words
    assert not any("hush" in word for word in words)


def test_who_an_experiment_is_by_comes_along(host: Host) -> None:
    subprocess.run(["git", "config", "user.name", "A. Developer"], cwd=host.project, check=True)
    subprocess.run(["git", "config", "user.email", "a@example.com"], cwd=host.project, check=True)
    arguments = set(follows(host.words(*RUN), "--env"))
    assert {"GIT_AUTHOR_NAME=A. Developer", "GIT_COMMITTER_EMAIL=a@example.com"} <= arguments


def test_a_server_sees_the_model_and_nothing_else(host: Host) -> None:
    model = host.home / "model"
    model.mkdir()
    words = host.words("docker/run", "serve", "cpu", MODEL=str(model), PORT="9000", HF_TOKEN="hush")
    assert follows(words, "--volume") == [f"{model}:/model:ro"]
    assert follows(words, "--publish") == ["127.0.0.1:9000:8080"]
    assert follows(words, "--env") == [f"TUNEPRESS_IMAGE=tunepress-serve:cpu@sha256:{'a' * 64}"]


@pytest.mark.parametrize("command", [("docker/run", "serve", "cpu"), ("make", "docker-serve", "IMAGE=cpu")])
@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_the_key_of_a_server_arrives_by_its_name_where_one_is_set(command: tuple[str, ...], engine: str, host: Host) -> None:
    (host.project / "models/onnx").mkdir(parents=True)
    words = host.words(*command, ENGINE=engine, TUNEPRESS_API_KEY="hush hush")
    assert "TUNEPRESS_API_KEY" in follows(words, "--env")
    assert not any("hush" in word for word in words)
    assert "TUNEPRESS_API_KEY" not in host.words(*command, ENGINE=engine)


def test_a_key_that_did_not_arrive_here_does_not_open_the_server(host: Host) -> None:
    (host.project / "models/onnx").mkdir(parents=True)
    done = host.run("docker/run", "serve", "cpu", TUNEPRESS_API_KEY="")
    assert done.returncode == 1
    assert done.stderr == "docker/run: TUNEPRESS_API_KEY is set and empty; unset it to serve without a key\n"
    assert not host.said.exists()


@pytest.mark.parametrize("kind", ["train", "test"])
def test_the_key_of_a_server_reaches_no_other_container(kind: str, host: Host) -> None:
    words = host.words("docker/run", kind, "cpu", "make", TUNEPRESS_API_KEY="hush", TUNEPRESS_NETWORK_SECONDS="5")
    assert "TUNEPRESS_NETWORK_SECONDS" in follows(words, "--env")
    assert not any("TUNEPRESS_API_KEY" in word or "hush" in word for word in words)


def test_a_server_without_a_model_says_what_to_do(host: Host) -> None:
    assert host.refused("docker/run", "serve", "cpu").startswith(f"docker/run: no model folder {host.project}/models/onnx; ")


@pytest.mark.parametrize(
    ("target", "last"),
    [
        (["docker-train"], ["tunepress-train:cuda13", "dvc", "exp", "run", "-S", "environment=cuda13"]),
        (
            ["docker-train", "EXPERIMENT=phi3_mini_lora", "IMAGE=cuda12"],
            ["tunepress-train:cuda12", "dvc", "exp", "run", "-S", "environment=cuda12", "-S", "+experiment=phi3_mini_lora"],
        ),
        (["docker-repro-cpu"], ["tunepress-train:cpu", "make", "--no-print-directory", "repro"]),
        (["docker-test"], ["tunepress-test:cpu", "make", "--no-print-directory", "test-all"]),
        (["docker-shell", "IMAGE=cpu"], ["tunepress-train:cpu", "bash"]),
    ],
)
def test_a_target_of_the_makefile_runs_its_command(target: list[str], last: list[str], host: Host) -> None:
    words = host.words("make", *target)
    assert words[-len(last) :] == last
    assert ("--gpus" in words) == ("cuda" in last[0])


def test_what_another_target_runs_chooses_its_own_gpus(host: Host) -> None:
    """`make test` runs the tests of the images, which run `make docker-train IMAGE=cpu`."""
    assert "--gpus" not in host.words("make", "--eval", "another: ; @make docker-train IMAGE=cpu", "another")


def build_arguments(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in follows(words, "--build-arg"))


@pytest.mark.parametrize(
    ("image", "lock", "torch", "onnxruntime", "genai"),
    [
        ("train cpu", "cpu", "CPU_TORCH", "CPU_ONNXRUNTIME", "CPU_ONNXRUNTIME_GENAI"),
        ("train cuda13", "cuda13", "CUDA13_TORCH", "CUDA13_ONNXRUNTIME_GPU", "CUDA13_ONNXRUNTIME_GENAI_CUDA"),
        ("train cuda12", "cuda12", "CUDA12_TORCH", "CUDA12_ONNXRUNTIME", "CUDA12_ONNXRUNTIME_GENAI"),
        ("serve cpu", "serve", None, "CPU_ONNXRUNTIME", "CPU_ONNXRUNTIME_GENAI"),
        ("serve cuda13", "serve-cuda13", None, "CUDA13_ONNXRUNTIME_GPU", "CUDA13_ONNXRUNTIME_GENAI_CUDA"),
        ("serve cuda12", "serve-cuda12", None, "CUDA12_ONNXRUNTIME_GPU", "CUDA12_ONNXRUNTIME_GENAI_CUDA"),
    ],
)
def test_an_image_is_built_from_the_pins(
    image: str, lock: str, torch: str | None, onnxruntime: str, genai: str, host: Host
) -> None:
    arguments, pinned = build_arguments(host.words("docker/build", *image.split())), pins(host.project)
    assert arguments["LOCK"] == lock
    assert arguments.get("TORCH") == (pinned[torch] if torch else None)
    assert (arguments["ONNXRUNTIME"], arguments["ONNXRUNTIME_GENAI"]) == (pinned[onnxruntime], pinned[genai])
    assert arguments["BASE_IMAGE"] == f"{pinned['BASE_IMAGE']}@{pinned['BASE_DIGEST']}"
    assert arguments["CUDA"] == pinned.get(f"{image.split()[1].upper()}_CUDA", "")


def test_what_azure_needs_is_in_an_image_for_those_who_ask_for_it(host: Host) -> None:
    assert build_arguments(host.words("docker/build", "train", "cuda13"))["EXTRA"] == ""
    assert build_arguments(host.words("docker/build", "train", "cuda13", EXTRA="azure"))["EXTRA"] == "azure"


def test_the_revision_is_that_of_git_and_says_where_the_tree_differs(host: Host) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=host.project, capture_output=True, text=True).stdout.strip()
    assert build_arguments(host.words("docker/build", "serve", "cpu"))["REVISION"] == head
    (host.project / "pyproject.toml").write_text('version = "9.9"\n', encoding="utf-8")
    arguments = build_arguments(host.words("docker/build", "serve", "cpu"))
    assert (arguments["REVISION"], arguments["VERSION"]) == (f"{head}-dirty", "9.9")


def test_a_base_without_a_digest_is_remarked_upon_in_one_line(host: Host) -> None:
    file = host.project / "docker/versions.env"
    text = file.read_text(encoding="utf-8").replace(f"BASE_DIGEST={pins(host.project)['BASE_DIGEST']}", "BASE_DIGEST=")
    file.write_text(text, encoding="utf-8")
    arguments = build_arguments(host.words("docker/build", "serve", "cpu"))
    assert arguments["BASE_IMAGE"] == pins(host.project)["BASE_IMAGE"]
    assert host.complaints.startswith("docker/versions.env: BASE_DIGEST is empty")
    assert "make docker-digests" in host.complaints
    assert len(host.complaints.splitlines()) == 1


def test_wheels_of_the_host_reach_the_image_for_the_cpu_alone(host: Host) -> None:
    wheels = {"PIP_FIND_LINKS": str(host.home)}
    assert follows(host.words("docker/build", "train", "cpu", **wheels), "--build-context") == [f"wheels={host.home}"]
    assert host.complaints == ""
    assert follows(host.words("docker/build", "train", "cuda13", **wheels), "--build-context") == []
    host.words("docker/build", "train", "cpu")
    assert "several GB" in host.complaints


def test_an_index_reaches_pip_as_a_secret_and_is_in_no_argument(host: Host) -> None:
    index = "https://me:hush@index.example.com/simple"
    (host.home / "ca.pem").write_text("a certificate\n", encoding="utf-8")
    words = host.words("docker/build", "serve", "cpu", PIP_INDEX_URL=index, PIP_CERT=str(host.home / "ca.pem"))
    assert not any("hush" in word for word in words)
    assert host.said.with_suffix(".secrets").read_text(encoding="utf-8").splitlines() == [
        f"export PIP_INDEX_URL='{index}' UV_DEFAULT_INDEX='{index}'",
        "a certificate",
    ]


@pytest.mark.parametrize("image", ["train cuda11", "test cuda13", "deploy cpu"])
def test_an_image_that_there_is_not_is_told_in_one_line(image: str, host: Host) -> None:
    assert host.refused("docker/build", *image.split()).startswith(f"docker/build: no image {' for '.join(image.split())}; ")


def test_podman_keeps_the_health_check_and_the_users_number(host: Host) -> None:
    assert follows(host.words("docker/build", "serve", "cpu", ENGINE="podman"), "--format") == ["docker"]
    rootless = host.words(*RUN, ENGINE="podman")
    assert follows(rootless, "--userns") == ([] if os.getuid() == 0 else ["keep-id"])


@pytest.fixture
def looked_up(host: Host) -> Callable[[str], str]:
    """Runs `make docker-digests` with what a registry says."""

    def run(digest: str) -> str:
        engine = f"#!/bin/sh\ncase \"$1\" in pull) echo id ;; image) echo 'debian@{digest}' ;; esac\n"
        (host.home.parent / "bin/docker").write_text(engine, encoding="utf-8")
        assert host.run("make", "docker-digests").returncode == 0
        return pins(host.project)["BASE_DIGEST"]

    return run


def test_the_digest_that_was_looked_up_takes_its_place_among_the_pins(looked_up: Callable[[str], str]) -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    assert looked_up(digest) == digest
