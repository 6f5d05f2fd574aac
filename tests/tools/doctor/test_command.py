"""The command: the recipes that can run here pass, those that cannot end with 1, and no secret is ever printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import run_module
from tests.tools.doctor.conftest import Read
from tools.doctor import __main__ as command
from tools.doctor.finding import State, warning
from tunepress.core.errors import InputError

SECRETS = {
    "HF_TOKEN": "hf_NeverToBePrinted0",
    "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=https;AccountName=none;AccountKey=NeverToBePrinted1==",
    "AZURE_CLIENT_SECRET": "NeverToBePrinted2",
    "AWS_SECRET_ACCESS_KEY": "NeverToBePrinted3",
}
REMOTE = """
['remote "there"']
    url = gs://user:NeverToBePrinted4@bucket/path?sig=NeverToBePrinted5
    credentialpath = NeverToBePrinted6.json
[core]
    remote = there
"""


def doctor(root: Path, folder: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    changed = os.environ | {"PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""} | environment
    if not environment:
        return run_module("tools.doctor", *overrides, folder=folder, environment=changed)
    command = [sys.executable, "-m", "tools.doctor", *overrides]  # huggingface_hub reads its variables when it is imported
    return subprocess.run(command, cwd=folder, env=changed, capture_output=True, text=True, timeout=300)


def test_the_default_recipe_can_run_here(root: Path) -> None:
    done = doctor(root, root, "+experiment=default")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.endswith("This recipe can run here.\n")
    assert "error" not in done.stdout
    for subject in (
        "Python",
        "packages",
        "git",
        "DVC",
        "CPU",
        "GPU",
        "driver",
        "provider",
        "disk",
        "memory to train",
        "az login",
    ):
        assert f"│ {subject}" in done.stdout


@pytest.mark.slow
def test_without_git_models_and_network_it_says_what_is_missing_and_no_secret(root: Path, tmp_path: Path) -> None:
    (tmp_path / "conf").symlink_to(root / "conf")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").touch()
    (tmp_path / ".dvc/config.local").write_text(REMOTE, encoding="utf-8")
    offline = {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "hub"),
        "GIT_CEILING_DIRECTORIES": str(tmp_path.parent),
    }
    done = doctor(root, tmp_path, "+experiment=olive_example", **offline, **SECRETS)
    assert done.returncode == 1
    assert done.stderr == "doctor: this recipe cannot run here; see git, model hub, rows\n"
    output = done.stdout + done.stderr
    assert "NeverToBePrinted" not in output.replace("\n", "")
    for name in (*SECRETS, "credentialpath", "(gs)"):
        assert name in output
    assert "train.bf16=true is meant for one" in output


def test_an_override_that_does_not_compose_is_one_line(root: Path) -> None:
    done = doctor(root, root, "train.learning_rat=1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("doctor: conf/: ")
    assert "did you mean train.learning_rate?" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_look_that_breaks_is_a_finding_and_the_others_go_on(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ImportError("libtorch.so: NeverToBePrinted")

    def refused() -> None:
        raise InputError("conf/: not YAML")

    monkeypatch.setattr("tools.doctor.devices.findings", broken)
    monkeypatch.setattr("tools.doctor.credentials.findings", refused)
    for name in ("versions", "resources", "places"):
        monkeypatch.setattr(f"tools.doctor.{name}.findings", lambda _, name=name: [warning(name, "", "")])
    findings = {finding.subject: finding for finding in command.examine(read())}
    assert findings["devices"].state is State.error
    assert findings["devices"].detail == "could not be checked (ImportError)"
    assert findings["credentials"].detail == "conf/: not YAML"
    assert {"versions", "resources", "places"} <= findings.keys()
