"""Credentials: which there are, and never their values."""

import shutil
from pathlib import Path

import pytest

from tools.doctor import credentials, dvc_project
from tools.doctor.finding import State

VALUE = "NeverToBePrinted"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any, on a machine without az."""
    for name in (*credentials.AZURE, *credentials.AWS, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(dvc_project, "configured", dict)
    return tmp_path


def summary() -> dict[str, str]:
    findings = list(credentials.findings())
    assert not any(VALUE in f"{finding.detail} {finding.advice}" for finding in findings)
    assert {finding.state for finding in findings} == {State.ok}
    return {finding.subject: finding.detail for finding in findings}


def test_a_user_without_any_is_told_so() -> None:
    assert summary() == {
        "Hugging Face token": "none",
        "Azure variables": "none",
        "az login": "az is not installed",
        "AWS": "none",
    }


def test_variables_and_files_are_named_and_not_shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "AZURE_STORAGE_CONNECTION_STRING", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, VALUE)
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text(VALUE, encoding="utf-8")
    details = summary()
    assert details["Hugging Face token"] == "one, from HF_TOKEN"
    assert details["Azure variables"] == "AZURE_STORAGE_CONNECTION_STRING"
    assert details["AWS"] == "AWS_ACCESS_KEY_ID, ~/.aws/credentials"


def test_a_token_of_a_login_is_found(home: Path) -> None:
    (home / "token").write_text(f"hf_{VALUE}", encoding="utf-8")
    assert summary()["Hugging Face token"] == "one, from the file of `hf auth login`"


@pytest.mark.parametrize(("code", "detail"), [(0, "logged in"), (1, "none")])
def test_the_login_of_az_is_asked_and_what_it_prints_is_dropped(code: int, detail: str, home: Path) -> None:
    shell = "/bin/sh"
    (home / "az").write_text(f'#!{shell}\n[ "$*" = "account show" ] || exit 7\necho {VALUE}\nexit {code}\n', encoding="utf-8")
    (home / "az").chmod(0o755)
    assert shutil.which("az")
    assert summary()["az login"] == detail


def test_an_az_that_hangs_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "az").write_text("#!/bin/sh\nexec /bin/sleep 60\n", encoding="utf-8")
    (home / "az").chmod(0o755)
    monkeypatch.setattr(credentials, "TIMEOUT", 0.2)
    assert credentials.azure_login().state is State.warning


def test_what_the_remotes_configuration_holds_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"url": f"azure://{VALUE}", "connection_string": VALUE, "account_name": VALUE}
    configuration = {"core": {"remote": "there"}, "remote": {"there": options}}
    monkeypatch.setattr(dvc_project, "configured", lambda: configuration)
    assert summary()["remote there"] == "connection_string"
