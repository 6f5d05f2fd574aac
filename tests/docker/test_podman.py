"""The images, built and run by podman on a base that debootstrap makes; only Debian's packages and the package index are asked.

Docker's engine needs a daemon; podman takes the same files and words without one. It needs root here, and works in a folder of
its own with its own settings: the machine's are left alone. Where CI=true, a program that is missing is a failure.
"""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.clone import SMOKE, Clone, heed_interrupts
from tests.docker.tools import pins
from tunepress.core.environment import locked_versions

NEEDED = ("podman", "runc", "debootstrap")
MISSING = [name for name in NEEDED if not shutil.which(name)] + ([] if os.getuid() == 0 else ["root"])
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(bool(MISSING) and not os.environ.get("CI"), reason=f"needs {', '.join(MISSING)}"),
]

OWNER = 12345  # of the project: an ordinary user, whom no image and no machine knows
BASE = "localhost/tunepress-base:bookworm"
SIZES = {"train": 2.8e9, "serve": 0.9e9}  # bytes; seen: 2.51 and 0.80, of which 0.22 are the base
SETTINGS = """\
[containers]
netns = "host"
default_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]
[network]
network_backend = "netavark"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
PACKAGES = """\
import json, re
from importlib.metadata import distributions
print(json.dumps({re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(): one.version for one in distributions()}))
"""


class Engine:
    """podman in a folder of its own, and a project whose owner is somebody else."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        (folder / "containers.conf").write_text(SETTINGS, encoding="utf-8")
        # podman 4.3 waits 20 s for the end of each container if the paths of its sockets are longer than 107 characters
        self.sockets = Path(tempfile.mkdtemp())
        places = f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/images"\nrunroot = "{self.sockets}"\n'
        (folder / "storage.conf").write_text(places, encoding="utf-8")
        (folder / "tmp").mkdir()
        self.project = Clone.of(root, folder / "home/project")
        self.project.environment |= {
            "ENGINE": "podman",
            "BASE_IMAGE": BASE,
            "CONTAINERS_CONF": f"{folder}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
            "TMPDIR": f"{folder}/tmp",  # of cache mounts
            # without systemd podman has nobody to time health checks, and says so on the way in or, if it wins a race, out
            "DISABLE_HC_SYSTEMD": "true",
            "BUILDAH_LAYERS": "false",  # each image is built once, and half as long without a cache of its steps
        }
        # root looks at another's repository; libgit2, which DVC uses too, reads this from no variable
        (folder / "home/.gitconfig").write_text("[safe]\n\tdirectory = *\n", encoding="utf-8")
        for path in (self.project.folder, *self.project.folder.rglob("*")):
            os.chown(path, OWNER, OWNER, follow_symlinks=False)

    def run(self, *command: str, code: int = 0, seconds: int = 1500) -> str:
        """What a command prints, standard error included, run in the project."""
        done = subprocess.run(
            command,
            cwd=self.project.folder,
            env=self.project.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == code, done.stdout[-6000:]
        return done.stdout

    def inside(self, kind: str, *command: str, code: int = 0) -> str:
        """The same in an image."""
        return self.run("docker/run", kind, "cpu", *command, code=code)

    def inspect(self, kind: str) -> Any:
        (image,) = json.loads(self.run("podman", "image", "inspect", f"tunepress-{kind}:cpu"))
        return image

    def make_base(self) -> None:
        base = self.folder / "base"
        self.run("debootstrap", "--variant=minbase", "bookworm", str(base))
        for leftover in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(base / leftover)
        self.run("sh", "-c", f"tar --directory {base} --create . | podman import --quiet - {BASE}")
        shutil.rmtree(base)


@pytest.fixture(scope="module")
def engine(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The images for the CPU, and a project in which the smoke recipe has run in one, by the command that a user types."""
    assert not MISSING, f"needs {', '.join(MISSING)}; .ci/run installs them"
    engine = Engine(root, tmp_path_factory.mktemp("podman"))
    try:
        engine.make_base()
        engine.run("docker/build", "serve", "cpu")
        engine.run("make", "docker-train", "IMAGE=cpu", "EXPERIMENT=smoke")
        yield engine
    finally:
        # a reset removes the folder of the events that it is still writing, and podman 4.3 then panics
        engine.run("podman", "--events-backend", "none", "system", "reset", "--force")
        shutil.rmtree(engine.folder, ignore_errors=True)
        shutil.rmtree(engine.sockets, ignore_errors=True)


@pytest.fixture(scope="module")
def inside(engine: Engine) -> Clone:
    """That project."""
    return engine.project


# what an image is


@pytest.mark.parametrize("kind", SIZES)
def test_an_image_is_no_larger_than_it_has_to_be(kind: str, engine: Engine) -> None:
    assert engine.inspect(kind)["Size"] <= SIZES[kind]


@pytest.mark.parametrize("kind", SIZES)
def test_an_image_tells_what_it_is_made_of_and_runs_as_an_ordinary_user(kind: str, engine: Engine) -> None:
    config, pinned = engine.inspect(kind)["Config"], pins(engine.project.folder)
    assert config["User"] == "1000:1000"
    labels = {key.removeprefix("tunepress."): value for key, value in config["Labels"].items() if key.startswith("tunepress.")}
    assert labels["onnxruntime"] == pinned["CPU_ONNXRUNTIME"]
    assert labels["onnxruntime-genai"] == pinned["CPU_ONNXRUNTIME_GENAI"]
    assert labels["lock"] == ("cpu" if kind == "train" else "serve")
    assert labels["python"] == pinned["PYTHON"]
    assert labels.get("torch") == (pinned["CPU_TORCH"] if kind == "train" else None)
    head = engine.run("git", "rev-parse", "HEAD").strip()
    assert config["Labels"]["org.opencontainers.image.revision"] == head
    assert config["Labels"]["org.opencontainers.image.base.name"] == BASE


@pytest.mark.parametrize("kind", SIZES)
def test_an_image_has_the_packages_of_its_lock_and_the_pinned_python(kind: str, engine: Engine) -> None:
    image = json.loads(
        engine.run("podman", "run", "--rm", "--entrypoint=python", f"tunepress-{kind}:cpu", "-c", PACKAGES).splitlines()[-1]
    )
    lock = locked_versions("requirements/cpu.txt" if kind == "train" else "requirements/serve.txt")
    assert {name: image.get(name, "").partition("+")[0] for name in lock} == lock
    assert image.keys() - lock.keys() <= ({"pip", "setuptools"} if kind == "train" else set())
    version = engine.run("podman", "run", "--rm", "--entrypoint=python", f"tunepress-{kind}:cpu", "--version")
    assert version.splitlines()[-1].startswith(f"Python {pins(engine.project.folder)['PYTHON']}.")


@pytest.mark.parametrize("kind", SIZES)
def test_no_layer_has_a_cache_a_secret_or_anything_of_the_host(kind: str, engine: Engine) -> None:
    history = json.dumps(engine.inspect(kind)["History"]) + json.dumps(engine.inspect(kind)["Config"])
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "PIP_FIND_LINKS"):
        assert os.environ.get(name, name) not in history
    places = "/root/.cache /var/cache/apt/archives /var/lib/apt/lists /run/secrets /wheels /tmp /var/log"
    looked = ["podman", "run", "--rm", "--no-healthcheck", "--user=0", "--entrypoint=sh", f"tunepress-{kind}:cpu", "-c"]
    assert engine.run(*looked, f"find {places} -type f -size +0 2> /dev/null || true") == ""
    assert engine.run(*looked, "find /project -name .git -o -name '*.safetensors' -o -name '*.onnx'") == ""


def test_what_serves_is_asked_for_its_health(engine: Engine) -> None:
    (test, *command) = engine.inspect("serve")["Healthcheck"]["Test"]
    assert test == "CMD"
    assert "/health" in command[-1]


def test_the_file_for_cuda_builds_up_to_the_wheels(engine: Engine) -> None:
    """Its base, the compiler that torch.compile needs, and what it runs with; the rest are several GB from the package index."""
    engine.run("docker/build", "train", "cuda13", "--target=base")
    (image,) = json.loads(engine.run("podman", "image", "inspect", "tunepress-train:cuda13"))
    assert "TUNEPRESS_LOCK=requirements/cuda13.txt" in image["Config"]["Env"]
    assert "NVIDIA_VISIBLE_DEVICES=all" in image["Config"]["Env"]
    assert "g++" in engine.run("podman", "run", "--rm", "--entrypoint=g++", "tunepress-train:cuda13", "--version")


# what runs in one


def test_the_user_is_the_owner_and_writes_only_where_a_run_needs_it(engine: Engine) -> None:
    writable = 'for place in "$HOME" /tmp "$PWD"; do touch "$place/.written" && rm "$place/.written"; done'
    assert engine.inside("train", "sh", "-c", f"{writable}; id -u; touch /usr/x || echo refused").splitlines()[-3:] == [
        str(OWNER),
        "touch: cannot touch '/usr/x': Read-only file system",
        "refused",
    ]


def test_an_image_for_another_environment_ends_in_one_line(engine: Engine) -> None:
    name = "tunepress-train:cpu"
    output = engine.run("podman", "run", "--rm", "--env=TUNEPRESS_LOCK=requirements/cuda13.txt", name, "true", code=1)
    assert output.startswith("image: requirements/cuda13.txt: has no onnxruntime, but ")
    assert len(output.splitlines()) == 1


def test_the_hashes_are_those_of_a_run_outside(inside: Clone, smoke_run: Clone) -> None:
    assert inside.outputs() == smoke_run.outputs()
    assert len(inside.outputs()) > 10


def test_outside_the_files_are_the_owners_and_nothing_is_left_to_do(inside: Clone) -> None:
    assert {path.lstat().st_uid for path in inside.folder.rglob("*")} == {OWNER}
    assert "Data and pipelines are up to date" in inside.run("dvc", "status")
    assert not list(inside.folder.rglob(".*.partial"))


def test_a_run_names_its_image_and_is_an_experiment_outside_too(inside: Clone, smoke_run: Clone, engine: Engine) -> None:
    speed = json.loads((inside.folder / "metrics/speed.json").read_text(encoding="utf-8"))
    identity = engine.run("docker/image", "train", "cpu").strip()
    name, _, digest = identity.partition("@")
    assert speed["image"] == f"{name}@{digest.removeprefix('sha256:')[:12]}"
    assert digest in (inside.folder / "report/index.html").read_text(encoding="utf-8")
    assert "image" not in json.loads((smoke_run.folder / "metrics/speed.json").read_text(encoding="utf-8"))
    assert len(inside.run("dvc", "exp", "list", "--name-only").split()) == 1


def test_the_model_answers_in_the_image_that_serves_as_it_does_outside(inside: Clone, engine: Engine) -> None:
    text = "You mean to tell me that the whole street has been in on this since June"
    command = ("python", "-m", "tools.cli.predict", "--model")
    assert (
        engine.inside("serve", *command, "/model", text).splitlines()[-1:]
        == inside.run(sys.executable, *command[1:], "models/onnx", text).splitlines()
    )


def test_the_image_that_serves_says_that_it_is_well_and_ends_when_told(inside: Clone, engine: Engine) -> None:
    command = ["docker/run", "serve", "cpu"]
    log = (engine.folder / "serve.log").open("w+b")
    server = subprocess.Popen(command, cwd=inside.folder, env=inside.environment, stdout=log, stderr=log)
    until = time.monotonic() + 120
    healthy = False
    while not healthy and server.poll() is None and time.monotonic() < until:
        with suppress(OSError), urllib.request.urlopen("http://127.0.0.1:8080/health", timeout=5) as answer:
            healthy = answer.status == 200
        time.sleep(0.2)
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) is not None
    log.seek(0)
    assert healthy, log.read().decode()


def test_ctrl_c_ends_a_run_cleanly(inside: Clone, engine: Engine) -> None:
    command = ["docker/run", "train", "cpu", "dvc", "exp", "run", *SMOKE, "-S", "train.max_steps=2000"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(inside.folder)
        heed_interrupts()
        os.execvpe(command[0], command, inside.environment)
    termios.tcsetwinsize(terminal, (40, 120))  # a new one has no columns, and a progress bar in it nothing to show
    output = read(terminal, until=rb"train: .*?\d+/2000", seconds=900)
    os.write(terminal, b"\x03")
    output += read(terminal, until=None, seconds=60)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) != 0
    assert b"train: interrupted" in output
    assert engine.run("podman", "ps", "--all", "--quiet") == ""
    assert {path.lstat().st_uid for path in inside.folder.rglob("*")} == {OWNER}
    assert not list(inside.folder.rglob(".*.partial"))
    assert "train" in inside.run("dvc", "status")  # no lock is left behind


def read(terminal: int, until: bytes | None, seconds: float) -> bytes:
    """What a terminal shows, until a pattern is there or, without one, the end."""
    output, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            try:
                output += os.read(terminal, 65536)
            except OSError:  # the other end is closed
                return output
        if until and re.search(until, output):
            return output
    raise AssertionError(f"no {until!r} in {seconds} s: {output[-3000:]!r}")
