"""tools/azure: jobs that Azure's own client submits to Azure on this machine, watches and cancels."""

import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from azure.ai.ml.operations._run_history_constants import RunHistoryConstants

from tests.azure.azurite import Azurite
from tests.azure.cloud import Answer, Cloud, Request, refuse
from tests.azure.jobs import HISTORY, Jobs
from tests.azure.machine_learning import ARM, CONTAINER, GROUP, SUBSCRIPTION, WORKSPACE
from tests.clone import Clone, heed_interrupts
from tools.azure.submit import __main__ as command
from tunepress.core.errors import InputError

PLACE = {
    "AZUREML_ARM_SUBSCRIPTION": SUBSCRIPTION,
    "AZUREML_ARM_RESOURCEGROUP": GROUP,
    "AZUREML_ARM_WORKSPACE_NAME": WORKSPACE,
}


@pytest.fixture(scope="module")
def clone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A project with a DVC remote in Azure, whose key git does not know."""
    clone = Clone.of(root, tmp_path_factory.mktemp("submit") / "clone")
    clone.run("dvc", "remote", "add", "--default", "azure", "azure://dvc/store")
    clone.commit()
    clone.run("dvc", "remote", "modify", "--local", "azure", "account_name", "tunepress")
    clone.run("dvc", "remote", "modify", "--local", "azure", "account_key", "c2VjcmV0LW9mLXRoZS1yZW1vdGU=")
    clone.run("git", "remote", "add", "origin", "https://me:at@password-of-git@git.example.com/project.git")
    return clone


@pytest.fixture
def jobs(storage: Azurite, in_cloud: Cloud, clone: Clone, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """Azure's jobs, and this process in the project."""
    service = Jobs(storage)
    service.serve(in_cloud)
    storage.container(CONTAINER)
    monkeypatch.chdir(clone.folder)
    monkeypatch.setattr(RunHistoryConstants, "_WAIT_COMPLETION_POLLING_INTERVAL_MIN", 0)
    for name, value in PLACE.items():
        monkeypatch.setenv(name, value)
    yield service
    os.environ.pop(command.REPOSITORY, None)


def submit(*arguments: str) -> int:
    """The exit status of `make azure-submit`, with what it would end in raised."""
    return command.submit(command.parser().parse_intermixed_args(arguments))


def only(mapping: dict[str, Any]) -> Any:
    (value,) = mapping.values()
    return value


# what Azure gets


def test_a_job_goes_to_azure_with_its_code_and_its_image_and_is_watched(
    jobs: Jobs, in_cloud: Cloud, storage: Azurite, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit("compute=gpu-cluster", "instance_count=2", "--experiment", "smoke", "-S", "train.max_steps=3") == 0
    job = only(jobs.jobs)
    assert job["computeId"].endswith("/computes/gpu-cluster")
    assert job["resources"]["instanceCount"] == 2
    assert job["distribution"] == {"distributionType": "PyTorch", "processCountPerInstance": 1}
    assert job["identity"]["identityType"] == "Managed"
    assert (
        "-S +experiment=smoke -S train.max_steps=3 --remote azure url=azure://dvc/store account_name=tunepress" in job["command"]
    )
    assert "/codes/" in job["codeId"]
    assert job["properties"]["mlflow.source.git.repoURL"] == "https://git.example.com/project.git"

    blobs = {blob.name: blob for blob in storage.container(CONTAINER).list_blobs()}
    (archive,) = [name for name in blobs if name.endswith("project.tar")]
    content = storage.container(CONTAINER).download_blob(archive).readall()
    with tarfile.open(fileobj=io.BytesIO(content)) as snapshot:
        assert "project/.git/HEAD" in snapshot.getnames()
    assert any(name.endswith("/Dockerfile") for name in blobs)
    assert only(jobs.environments)["build"]["dockerfilePath"] == "Dockerfile"

    output = capsys.readouterr().out
    assert output.count("fetch: done") == 1
    assert output.count("train: done") == 1
    assert output.endswith("completed\n")
    sent = b"".join(request.url.encode() + request.body for request in in_cloud.requests)
    assert b"password-of-git" not in sent
    assert b"c2VjcmV0LW9mLXRoZS1yZW1vdGU" not in sent
    assert b"train.max_steps=3" in sent


def test_kubernetes_gets_its_instance_type_and_the_seed_s_image_its_conda_file(jobs: Jobs) -> None:
    image = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04"
    settings = ["compute=arc", "azure_arc=true", "instance_type=gpu", "environment.conda_file=lock", f"environment.image={image}"]
    assert submit(*settings) == 0
    assert only(jobs.jobs)["resources"]["instanceType"] == "gpu"
    assert not only(jobs.jobs).get("distribution")
    environment = only(jobs.environments)
    assert environment["image"] == image
    packages = yaml.safe_load(environment["condaFile"])["dependencies"]
    assert "python=3.11" in packages
    assert "dvc-azure==3.1.1" in packages[-1]["pip"]
    assert any(pin.startswith("torch==") for pin in packages[-1]["pip"])


def test_an_image_that_is_built_is_taken_as_it_is(jobs: Jobs) -> None:
    image = f"registry.example.com/tunepress@sha256:{'0' * 64}"
    assert submit("compute=gpu-cluster", f"environment.image={image}", "client_id=identity") == 0
    assert only(jobs.environments)["image"] == image
    assert only(jobs.jobs)["environmentVariables"]["TUNEPRESS_IMAGE"] == image
    assert only(jobs.jobs)["identity"]["clientId"] == "identity"
    assert "--client-id identity" in only(jobs.jobs)["command"]


def test_a_file_of_this_machine_is_uploaded_as_an_input(jobs: Jobs, storage: Azurite, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"phrase": "of mine", "tone": "joy"}\n')
    rows = f"inputs={{rows: {{path: {tmp_path}/mine.jsonl, place: data/inputs/mine.jsonl}}}}"
    assert submit("compute=gpu-cluster", rows, "-S", "data.files=[data/inputs/mine.jsonl]") == 0
    job = only(jobs.jobs)
    assert job["inputs"]["rows"]["uri"].startswith("azureml://datastores/workspaceblobstore/")
    assert job["inputs"]["rows"]["mode"] == "ReadOnlyMount"
    assert "--input ${{inputs.rows}} data/inputs/mine.jsonl" in job["command"]
    assert any(blob.name.endswith("mine.jsonl") for blob in storage.container(CONTAINER).list_blobs())


# how it ends


def test_a_job_that_fails_fails_the_command_with_azure_s_reason(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    jobs.statuses = ["Queued", "Running", "Failed"]
    assert submit("compute=gpu-cluster") == 1
    assert capsys.readouterr().out.endswith(": failed: the node has run out of memory\n")


def test_a_job_that_somebody_cancels_fails_the_command(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    jobs.statuses = ["Queued", "Running", "Canceled"]
    assert submit("compute=gpu-cluster") == 1
    assert capsys.readouterr().out.endswith(": canceled\n")


@pytest.mark.parametrize("cancel", [True, False])
def test_ctrl_c_ends_the_watching_and_where_it_is_wanted_the_job(cancel: bool, jobs: Jobs, clone: Clone) -> None:
    jobs.statuses = ["Running"]
    settings = ["compute=gpu-cluster", f"cancel_on_interrupt={str(cancel).lower()}"]
    watching = subprocess.Popen(
        [sys.executable, "-m", "tools.azure.submit", *settings],
        env=os.environ | {"AZUREML_RUN_POLLING_INTERVAL_MIN": "1"},
        preexec_fn=heed_interrupts,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    for line in watching.stdout:
        if "train: done" in line or line.startswith("RunId"):
            break
    watching.send_signal(signal.SIGINT)
    output = watching.stdout.read()
    assert watching.wait(timeout=60) == 1
    name = only({key: key for key in jobs.jobs})
    assert jobs.canceled == ([name] if cancel else [])
    assert output.endswith(f"job {name}: canceled\n" if cancel else f"`az ml job cancel --name {name}` cancels it\n")


def test_a_connection_that_breaks_off_says_how_to_watch_again(jobs: Jobs, in_cloud: Cloud) -> None:
    in_cloud.route(
        "GET",
        f"{HISTORY}/workspaces/{WORKSPACE}/runs/(?P<name>.*)/details",
        lambda request, name: refuse(503, "Busy", "too busy"),
    )
    with pytest.raises(
        InputError, match=r"^job (default-\S+): .*; it may still be running; `make azure-fetch JOB=\1` waits for it$"
    ):
        submit("compute=gpu-cluster")


# what Azure refuses


def test_a_compute_that_is_not_there_is_named_before_anything_is_uploaded(jobs: Jobs, in_cloud: Cloud) -> None:
    with pytest.raises(InputError, match="'otherwhere' under resource group"):
        submit("compute=otherwhere")
    assert not [request for request in in_cloud.requests if request.method == "PUT"]


def test_a_compute_of_another_kind_is_told(jobs: Jobs) -> None:
    with pytest.raises(InputError, match="compute arc has type kubernetes; set azure_arc=true"):
        submit("compute=arc")
    with pytest.raises(InputError, match="compute gpu-cluster has type amlcompute; set azure_arc=false"):
        submit("compute=gpu-cluster", "azure_arc=true", "instance_type=gpu")


def test_no_permission_is_told_in_one_line(jobs: Jobs, in_cloud: Cloud) -> None:
    def forbid(request: Request, name: str) -> Answer:
        return refuse(403, "AuthorizationFailed", "The client 'you' may not write jobs")

    in_cloud.route("PUT", f"{ARM}/jobs/(?P<name>.*)", forbid)
    with pytest.raises(InputError, match=r"^workspace .*: your account has no permission; .*may not write jobs") as refused:
        submit("compute=gpu-cluster")
    assert "\n" not in str(refused.value)
