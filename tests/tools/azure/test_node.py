"""What a node does with its inputs and environment. tests/azure/test_job_runs.py runs whole jobs."""

import json
import os
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from fsspec.implementations.memory import MemoryFileSystem

from tests.loopback import running
from tools.azure.node import __main__ as node
from tools.azure.node import key_vault
from tools.azure.node.setup import is_first_node, link_input, torchrun_environment, write_and_remove
from tunepress.core.errors import InputError

PYTORCH_VARIABLES = {
    "RANK": "1",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "NODE_RANK": "1",
    "MASTER_ADDR": "10.0.0.4",
    "MASTER_PORT": "6105",
}
REQUIRED = ["--name", "job", "--lock", "cpu", "--remote", "azure", "url=azure://dvc", "--results", "results"]


# several nodes


def test_a_node_s_process_of_pytorch_is_a_node_of_torchrun() -> None:
    assert torchrun_environment(PYTORCH_VARIABLES | {"PATH": "/bin"}) == {
        "PATH": "/bin",
        "PET_NNODES": "2",
        "PET_NODE_RANK": "1",
        "PET_MASTER_ADDR": "10.0.0.4",
        "PET_MASTER_PORT": "6105",
        "PET_RDZV_CONF": "timeout=3600",
    }
    assert not is_first_node(PYTORCH_VARIABLES)
    assert is_first_node(PYTORCH_VARIABLES | {"RANK": "0"})


def test_a_node_alone_is_the_first_and_of_no_torchrun() -> None:
    assert is_first_node({})
    assert torchrun_environment({"PATH": "/bin"}) == {"PATH": "/bin"}


# what its commands see


def test_a_node_logs_in_with_the_identity_of_its_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_CLIENT_ID", "before")
    inherited = {"DEFAULT_IDENTITY_CLIENT_ID": "of-the-compute"}
    assert node.environment(node.parser().parse_args(REQUIRED), inherited)["AZURE_CLIENT_ID"] == "of-the-compute"
    chosen = node.parser().parse_args([*REQUIRED, "--client-id", "chosen"])
    assert node.environment(chosen, inherited)["AZURE_CLIENT_ID"] == "chosen"


def test_the_remote_is_tried_with_the_identity_of_the_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    tried_as: list[str] = []
    monkeypatch.setenv("AZURE_CLIENT_ID", "before")
    monkeypatch.setenv("DEFAULT_IDENTITY_CLIENT_ID", "of-the-compute")
    monkeypatch.setattr(node, "add_remote", lambda name, options: tried_as.append(os.environ["AZURE_CLIENT_ID"]))
    monkeypatch.setattr(node, "lead", lambda arguments, variables: 0)
    monkeypatch.setattr(sys, "argv", ["node", *REQUIRED])
    with pytest.raises(SystemExit):
        node.main()
    assert tried_as == ["of-the-compute"]


def test_the_experiment_is_of_the_environment_that_is_installed() -> None:
    arguments = node.parser().parse_args([*REQUIRED, "-S", "+experiment=smoke"])
    assert node.settings(arguments) == ["-S", "environment=cpu", "-S", "+experiment=smoke"]
    assert node.environment(arguments, {})["TUNEPRESS_LOCK"] == "requirements/cpu.txt"


# the steps of the first node


@pytest.mark.parametrize(
    ("failing", "code", "ran"),
    [
        ({}, 0, ["tools.doctor.check_image", "dvc exp", "dvc push", "tools.cli.results"]),
        ({"tools.doctor.check_image": 1}, 1, ["tools.doctor.check_image"]),
        ({"dvc exp": 1}, 1, ["tools.doctor.check_image", "dvc exp"]),
        ({"dvc push": 1}, 0, ["tools.doctor.check_image", "dvc exp", "dvc push", "dvc push", "tools.cli.results"]),
        ({"dvc push": 3}, 1, ["tools.doctor.check_image", "dvc exp", "dvc push", "dvc push", "dvc push"]),
        ({"tools.cli.results": 1}, 0, ["tools.doctor.check_image", "dvc exp", "dvc push", "tools.cli.results"]),
    ],
)
def test_a_step_that_fails_ends_the_job_but_a_broken_bound_and_a_push_that_the_next_completes(
    failing: dict[str, int], code: int, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []
    bundles: list[str] = []

    def run(command: list[str], variables: dict[str, str]) -> int:
        commands.append(" ".join(command[:2]))
        return int(commands.count(commands[-1]) <= failing.get(commands[-1], 0))

    monkeypatch.setattr(node, "python", run)
    monkeypatch.setattr(node, "write_bundle", lambda name, folder: bundles.append(name))
    assert node.lead(node.parser().parse_args(REQUIRED), {}) == code
    assert commands == ran
    assert bundles == ([] if code else ["job"])


# the remote


def test_nodes_that_try_the_remote_at_once_do_not_remove_each_other_s_file() -> None:
    class Shared(MemoryFileSystem):
        others = 1

        def pipe_file(self, path: str, value: bytes, **options: str) -> None:
            super().pipe_file(path, value, **options)
            if self.others:
                self.others -= 1
                write_and_remove(self, "/store")

    system = Shared()
    write_and_remove(system, "/store")
    assert system.others == 0
    assert system.find("/store") == []


# inputs


def test_an_input_is_where_the_project_expects_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted/rows.jsonl").write_text("{}")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    link_input(str(tmp_path / "mounted/rows.jsonl"), "data/inputs/rows.jsonl")
    link_input(str(tmp_path / "mounted"), "models/mine")
    assert Path("data/inputs/rows.jsonl").read_text() == Path("models/mine/rows.jsonl").read_text() == "{}"
    with pytest.raises(InputError, match=r"input data/inputs/rows\.jsonl: the project has a file of that name"):
        link_input(str(tmp_path / "mounted/rows.jsonl"), "data/inputs/rows.jsonl")
    with pytest.raises(InputError, match="which does not exist"):
        link_input(str(tmp_path / "mounted/other"), "data/inputs/other")


# the Hugging Face token


class Vault(HTTPServer):
    """Answers with a status; `requests` are the paths and tokens that came."""

    status = 200
    requests: tuple[tuple[str, str | None], ...] = ()


class Handler(BaseHTTPRequestHandler):
    server: Vault

    def do_GET(self) -> None:
        self.server.requests += ((self.path, self.headers["Authorization"]),)
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(json.dumps({"value": "hf_of-the-tests"}).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vault]:
    """A Key Vault on this machine, for an identity of ours."""

    class Identity:
        def get_token(self, *scopes: str) -> AccessToken:
            assert scopes == ("https://vault.azure.net/.default",)
            return AccessToken("of-the-node", 2**40)

    monkeypatch.setattr(key_vault, "DefaultAzureCredential", Identity)
    with running(Vault(("127.0.0.1", 0), Handler)) as server:
        yield server


def test_the_token_is_the_vault_s_secret(vault: Vault) -> None:
    assert key_vault.hugging_face_token(f"http://127.0.0.1:{vault.server_port}") == "hf_of-the-tests"
    assert vault.requests == (("/secrets/hf-token?api-version=7.4", "Bearer of-the-node"),)


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "refused with status 403; give .*Key Vault Secrets User"), (404, "no secret `hf-token`; `az keyvault")],
)
def test_a_vault_that_refuses_is_told_with_the_cure(status: int, message: str, vault: Vault) -> None:
    vault.status = status
    with pytest.raises(InputError, match=message):
        key_vault.hugging_face_token(f"http://127.0.0.1:{vault.server_port}")


def test_a_redirect_does_not_take_the_token_elsewhere(vault: Vault) -> None:
    vault.status = 302
    with pytest.raises(InputError, match="refused with status 302"):
        key_vault.hugging_face_token(f"http://127.0.0.1:{vault.server_port}")
    assert len(vault.requests) == 1


def test_no_vault_and_no_identity_are_told(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"Key Vault http://127\.0\.0\.1:9: "):
        key_vault.hugging_face_token("http://127.0.0.1:9")

    class Nobody:
        def get_token(self, *scopes: str) -> AccessToken:
            raise ClientAuthenticationError("nobody")

    monkeypatch.setattr(key_vault, "DefaultAzureCredential", Nobody)
    with pytest.raises(InputError, match="no identity to log in with"):
        key_vault.hugging_face_token("http://127.0.0.1:9")
