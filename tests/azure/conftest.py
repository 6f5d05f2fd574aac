"""Fixtures of the tests for Azure. Where CI=true, a program that is missing is a failure."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azure.azurite import MISSING, Azurite
from tests.azure.cloud import Cloud, serving
from tests.azure.machine_learning import CONTAINER, STORE, UPLOADED, MachineLearning


def skip_without_azurite() -> None:
    """Skips a test where Azurite cannot run."""
    if MISSING and not os.environ.get("CI"):
        pytest.skip(f"needs {', '.join(MISSING)}: `make tests/azure/node_modules`")


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Azure Blob Storage, empty, for one test module."""
    skip_without_azurite()
    server = Azurite(tmp_path_factory.mktemp("azurite"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud that knows how to log in; it fails a test that asked it what it has no route for."""
    with serving(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud
        assert cloud.failures == []


@pytest.fixture
def machine_learning(cloud: Cloud) -> MachineLearning:
    """Azure Machine Learning in that cloud."""
    service = MachineLearning()
    service.serve(cloud)
    return service


@pytest.fixture
def in_cloud(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cloud:
    """This process sent to the cloud and logged in, in an empty folder."""
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return cloud


@pytest.fixture
def storage(azurite: Azurite, in_cloud: Cloud, machine_learning: MachineLearning) -> Azurite:
    """The blob server as the storage account of the workspace and of the registry."""
    in_cloud.blobs = azurite
    for name in (CONTAINER, UPLOADED):
        azurite.container(name)
    machine_learning.secrets[STORE] = {"secretsType": "AccountKey", "key": azurite.account_key}
    machine_learning.sas_token = azurite.sas_token
    return azurite
