"""Every login that names an account: its key, a SAS token, `az login` and a managed identity, at the address that Azure has."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from tests.azure.azurite import ACCOUNT, Azurite
from tests.azure.conftest import skip_without_azurite
from tests.azure.gateway import SUFFIX, ManagedIdentity, certify, proxy, serving, token
from tests.azure.project import Project

pytestmark = pytest.mark.slow


class Azure:
    """Azurite at Azure's address, and the environment in which clients find it."""

    def __init__(self, server: Azurite, certificate: Path, gateway: str) -> None:
        self.server = server
        self.environment = {
            "HTTPS_PROXY": gateway,
            "SSL_CERT_FILE": str(certificate),
            "AZURE_STORAGE_ACCOUNT": ACCOUNT,
        }
        service = BlobServiceClient(
            f"https://{ACCOUNT}{SUFFIX}", server.account_key, proxies={"https": gateway}, connection_verify=str(certificate)
        )
        self.container = service.create_container("results")

    def pushed(self) -> int:
        """How many blobs there are, which are then removed."""
        names = list(self.container.list_blob_names())
        for name in names:
            self.container.delete_blob(name)
        return len(names)


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    skip_without_azurite()
    certificate, key = certify(tmp_path_factory.mktemp("authority"))
    server = Azurite(tmp_path_factory.mktemp("azure"), "--cert", str(certificate), "--key", str(key), "--oauth", "basic")
    server.start()
    with serving(proxy(server.port)) as gateway:
        yield Azure(server, certificate, gateway)
    server.stop()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, azure: Azure) -> Project:
    """A project with one small result."""
    folder = tmp_path_factory.mktemp("project")
    project = Project(folder)
    project.environment |= azure.environment | {"AZURE_CONFIG_DIR": str(folder / "none")}
    (folder / "dvc.yaml").write_text("stages: {one: {cmd: echo one > one.txt, outs: [one.txt]}}\n")
    project.run("git", "init", "--quiet")
    project.run("dvc", "init", "--quiet")
    project.run("dvc", "repro", "--quiet")
    return project


@pytest.fixture(autouse=True)
def nothing_set(project: Project) -> Iterator[None]:
    """Each test has the environment for itself, and no login kept by another."""
    before = dict(project.environment)
    yield
    project.environment = before
    (project.folder / ".dvc/config.local").unlink(missing_ok=True)


@pytest.mark.parametrize("kind", ["account key", "SAS token"])
def test_that_a_secret_lets_in_and_may_be_kept(project: Project, azure: Azure, kind: str) -> None:
    variable, secret = {
        "account key": ("AZURE_STORAGE_KEY", azure.server.account_key),
        "SAS token": ("AZURE_STORAGE_SAS_TOKEN", azure.server.sas_token),
    }[kind]
    project.environment[variable] = secret
    output = project.set_up("azure://results/secret", "--store")
    assert f"in account {ACCOUNT}, reached with the {kind} of the environment, which is now stored in .dvc/config.local" in output
    del project.environment[variable], project.environment["AZURE_STORAGE_ACCOUNT"]
    project.share("push")
    assert azure.pushed() == 1
    assert f"account_name = {ACCOUNT}" in (project.folder / ".dvc/config").read_text()
    assert secret not in (project.folder / ".dvc/config").read_text()
    assert secret in (project.folder / ".dvc/config.local").read_text()


def test_that_az_login_lets_in(project: Project, azure: Azure, tmp_path: Path) -> None:
    expires = (datetime.now() + timedelta(hours=1)).strftime("%Y-%m-%d %H:%M:%S.%f")
    answer = {"accessToken": token(), "expiresOn": expires, "tenant": "t", "subscription": "s", "tokenType": "Bearer"}
    program = tmp_path / "az"
    program.write_text(f"#!/bin/sh\ncat << 'END'\n{json.dumps(answer)}\nEND\n")
    program.chmod(0o755)
    del project.environment["AZURE_STORAGE_ACCOUNT"]
    project.environment |= {"PATH": f"{tmp_path}:{project.environment['PATH']}", "AZURE_TOKEN_CREDENTIALS": "dev"}
    output = project.set_up("azure://results/login", "--account", ACCOUNT)
    assert f"in account {ACCOUNT}, reached with `az login` or a managed identity; commit" in output
    project.share("push")
    assert azure.pushed() == 1
    assert not (project.folder / ".dvc/config.local").exists()
    output = project.set_up("azure://results/login", "--account", ACCOUNT, "--store", code=1)
    assert output == "remote-azure: `az login` or a managed identity has no secret to store: omit STORE\n"


def test_that_a_managed_identity_lets_in(project: Project, azure: Azure) -> None:
    with serving(ManagedIdentity) as endpoint:
        project.environment |= {"IDENTITY_ENDPOINT": endpoint, "IDENTITY_HEADER": "machine"}
        project.environment |= {"AZURE_TOKEN_CREDENTIALS": "prod"}
        project.set_up("azure://results/identity")
        project.share("push")
    assert azure.pushed() == 1


def test_that_the_lack_of_a_login_is_said(project: Project, azure: Azure) -> None:
    project.environment |= {"AZURE_TOKEN_CREDENTIALS": "dev", "PATH": str(Path(project.run("which", "python").strip()).parent)}
    output = project.set_up("azure://results/none", code=1)
    assert output.startswith(f"remote-azure: account {ACCOUNT}: no login with `az login` or a managed identity: DefaultAzureCred")
    assert "Traceback" not in output
