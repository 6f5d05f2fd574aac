"""A job from end to end: what Azure got is run on two nodes of this machine, and its model comes back by the DVC remote."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.azure.azurite import Azurite
from tests.azure.cloud import TOKEN, Answer, Cloud, Request, say, serving
from tests.azure.jobs import Jobs
from tests.azure.machine_learning import CONTAINER, STORE, MachineLearning
from tests.azure.test_jobs import PLACE
from tests.clone import Clone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
OF_HUGGING_FACE = f"hf_{secrets.token_hex(16)}"
ROWS = "data/inputs/mine.jsonl"
SETTINGS = ("compute=gpu-cluster", "instance_count=2", "environment.lock=cpu", "hf_token=true", "keyvault_name=vault")
INPUT = f"inputs={{rows: {{path: 'azureml://datastores/{STORE}/paths/mine.jsonl', place: {ROWS}}}}}"
PARAMETERS = ("--experiment", "smoke", "-S", f"data.files=[{ROWS}]")


@dataclass
class Run:
    """What came of the job: where it was submitted, what its nodes said, and what Azure was asked."""

    name: str
    clone: Clone
    nodes: list[Path]
    logs: list[str]
    fetched: str
    requests: list[Request]
    storage: Azurite


@pytest.fixture(scope="module")
def cloud(azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Azure on this machine, with a Key Vault; a DVC remote takes its own time, so all tests share it."""
    with serving(tmp_path_factory.mktemp("cloud")) as cloud:
        cloud.blobs = azurite
        machine_learning = MachineLearning()
        machine_learning.secrets[STORE] = {"secretsType": "AccountKey", "key": azurite.account_key}
        machine_learning.serve(cloud)
        cloud.route("GET", "https://vault.vault.azure.net/secrets/hf-token", hf_token)
        yield cloud


def hf_token(request: Request) -> Answer:
    return say({"value": OF_HUGGING_FACE} if request.headers["Authorization"] == f"Bearer {TOKEN}" else {})


@pytest.fixture(scope="module")
def run(root: Path, cloud: Cloud, azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One job on two nodes: submitted, run, and fetched."""
    folder = tmp_path_factory.mktemp("job")
    clone = Clone.of(root, folder / "clone")
    clone.run("dvc", "remote", "add", "--default", "azure", "azure://dvc/store")
    clone.run("dvc", "remote", "modify", "azure", "account_name", azurite.account_name)
    clone.commit()
    clone.environment |= PLACE | cloud.environment | {"AZUREML_RUN_POLLING_INTERVAL_MIN": "0", "OMP_NUM_THREADS": "1"}
    jobs = Jobs(azurite)
    jobs.serve(cloud)
    azurite.container("dvc")
    azurite.container(CONTAINER)

    clone.run(sys.executable, "-m", "tools.azure.submit", *SETTINGS, INPUT, *PARAMETERS)
    ((name, job),) = jobs.jobs.items()
    mounted = folder / "mounted"
    mounted.mkdir()
    shutil.copy(root / "data/raw/tone.jsonl", mounted / "rows")
    nodes = [node(folder / f"node{rank}", azurite) for rank in (0, 1)]
    logs = run_on(nodes, job["command"], mounted, clone.environment)

    for file in (folder / "node0/results").iterdir():
        azurite.upload(CONTAINER, f"azureml/{name}/results/{file.name}", file.read_bytes())
    fetched = clone.run(sys.executable, "-m", "tools.azure.fetch", name)
    assert cloud.failures == []  # onnxruntime would have asked its makers' server
    return Run(name, clone, nodes, logs, fetched, cloud.requests, azurite)


def node(folder: Path, storage: Azurite) -> Path:
    """A node's working folder: the job's code and an empty folder for its output."""
    (folder / "results").mkdir(parents=True)
    blobs = [blob.name for blob in storage.container(CONTAINER).list_blobs()]
    (archive,) = [name for name in blobs if name.endswith("project.tar")]
    (folder / "project.tar").write_bytes(storage.container(CONTAINER).download_blob(archive).readall())
    return folder


def run_on(nodes: list[Path], command: str, mounted: Path, environment: dict[str, str]) -> list[str]:
    """Runs the command on all nodes as Azure ML would with its PyTorch distribution; what each has printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    with ExitStack() as running:
        for rank, folder in enumerate(nodes):
            filled_in = command.replace("${{inputs.rows}}", str(mounted / "rows")).replace(
                "${{outputs.results}}", f"{folder}/results"
            )
            of_azure = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "NODE_RANK": str(rank)}
            distribution = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "HOME": str(folder)}
            log = running.enter_context((folder / "log.txt").open("w"))
            process = subprocess.Popen(
                ["bash", "-c", filled_in],
                cwd=folder,
                env=environment | of_azure | distribution,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            running.callback(end, process)
            started.append(process)
        codes = [process.wait(timeout=800) for process in started]
    logs = [(folder / "log.txt").read_text() for folder in nodes]
    assert codes == [0, 0], "\n".join(log[-3000:] for log in logs)
    return logs


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a node that has not ended by itself, with all that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_model_is_here_by_the_dvc_remote_and_is_the_node_s(run: Run) -> None:
    here, on_node = run.clone.folder / "models/onnx", run.nodes[0] / "project/models/onnx"
    assert (here / "genai_config.json").exists()
    assert {file.name for file in here.iterdir()} == {file.name for file in on_node.iterdir()}
    assert (here / "model.onnx").read_bytes() == (on_node / "model.onnx").read_bytes()
    assert f"experiment {run.name} is in the working tree, with its model in models/onnx" in run.fetched


def test_what_git_knows_of_the_experiment_is_here_under_the_job_s_name(run: Run) -> None:
    assert run.name in run.clone.run("dvc", "exp", "list", "--all-commits")
    for name in ("dvc.lock", "params.yaml", "metrics/summary.json"):
        assert (run.clone.folder / name).read_bytes() == (run.nodes[0] / "project" / name).read_bytes()
    assert f"- {ROWS}" in (run.clone.folder / "params.yaml").read_text()


def test_both_nodes_trained_and_only_the_first_did_the_rest(run: Run) -> None:
    first, second = run.logs
    assert "Running stage 'build'" in first
    assert "Running stage 'prepare'" in second
    assert "Running stage 'train'" not in second
    assert (run.nodes[1] / "project/models/base").exists()
    assert not (run.nodes[1] / "project/models/onnx").exists()
    assert not list((run.nodes[1] / "results").iterdir())


def test_no_secret_is_in_a_log_or_on_a_node(run: Run) -> None:
    assert any(request.url.startswith("https://vault.vault.azure.net/secrets/hf-token") for request in run.requests)
    for secret in (OF_HUGGING_FACE, TOKEN, run.storage.account_key):
        assert not [log for log in run.logs if secret in log]
        # TOKEN is written in these tests, which the snapshot has
        command = ["grep", "-r", "-l", "-F", "--exclude-dir=tests", "--", secret, *map(str, run.nodes)]
        assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == ""


def test_a_node_that_may_not_write_to_the_remote_says_so_before_it_works(run: Run, tmp_path: Path) -> None:
    shutil.copytree(
        run.nodes[0] / "project", tmp_path / "project", ignore=shutil.ignore_patterns("models", "cache"), symlinks=True
    )
    remote = ("--remote", "azure", "url=azure://elsewhere/store", f"account_name={run.storage.account_name}")
    done = subprocess.run(
        [sys.executable, "-m", "tools.azure.node", "--name", "again", "--lock", "cpu", *remote, "--results", str(tmp_path)],
        cwd=tmp_path / "project",
        env=os.environ | run.clone.environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1
    output = done.stderr.strip().splitlines()[-1]
    assert output.startswith("node: DVC remote azure://elsewhere/store: cannot be written (")
    assert "Storage Blob Data Contributor" in output


def test_a_result_does_not_go_over_changes_nor_into_another_commit(run: Run) -> None:
    fetch = (sys.executable, "-m", "tools.azure.fetch", run.name)
    assert "changed since the last commit, and the job's result would overwrite it" in run.clone.run(*fetch, code=1)
    run.clone.commit()
    before = run.clone.run("git", "rev-parse", "HEAD~").strip()
    assert f"is based on another commit: `git switch --detach {before[:9]}`" in run.clone.run(*fetch)
    assert run.clone.run("git", "status", "--porcelain") == ""
