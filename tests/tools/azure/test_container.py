"""Secrets that must not be in .dvc/config. tests/azure has the tests of the container itself."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from dvc import config_schema
from dvc.config import Config

from tools.azure.container import SECRET_OPTIONS, refuse_tracked_secrets
from tunepress.core.errors import InputError

HARMLESS = {  # switches, numbers, and names of files and programs
    "ask_passphrase",
    "ask_password",
    "bearer_token_command",
    "custom_auth_header",
    "exclude_environment_credential",
    "exclude_managed_identity_credential",
    "exclude_shared_token_cache_credential",
    "exclude_visual_studio_code_credential",
    "gdrive_user_credentials_file",
    "credentialpath",
    "key_path",
    "keyfile",
    "access_key_id",
    "oss_key_id",
    "sse_kms_key_id",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def configured(project: Path, text: str) -> Config:
    (project / ".dvc/config").write_text(text, encoding="utf-8")
    return Config(str(project / ".dvc"), validate=False)


def test_each_option_of_dvc_that_sounds_like_a_secret_is_one_or_is_known_to_be_none() -> None:
    text = Path(config_schema.__file__).read_text(encoding="utf-8")
    names = set(
        re.findall(r'"([a-z_]*(?:secret|token|passw|passphrase|key|credential|connection_string|auth_header)[a-z_]*)":', text)
    )
    assert names - HARMLESS == SECRET_OPTIONS


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("['remote \"a-b\"']\n    url = azure://c\n    account_key = abc\n", "remote.a-b.account_key"),
        ("[core]\n    remote = a\n['remote \"a\"']\n    url = webdav://h\n    token = abc\n", "remote.a.token"),
        ("[studio]\n    token = abc\n", "studio.token"),
    ],
)
def test_a_secret_is_refused_with_the_command_that_takes_it_out(text: str, name: str, project: Path) -> None:
    config = configured(project, text)
    with pytest.raises(InputError, match=rf"^\.dvc/config is in git and has {re.escape(name)}: ") as refused:
        refuse_tracked_secrets(config)
    assert "abc" not in str(refused.value)
    assert f"`dvc config --unset {name}`" in str(refused.value)
    subprocess.run(["git", "init", "--quiet", project], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "config", "--unset", name], cwd=project, check=True)
    refuse_tracked_secrets(Config(str(project / ".dvc"), validate=False))


def test_a_question_for_a_password_is_none_and_what_git_does_not_know_may_be_one(project: Path) -> None:
    (project / ".dvc/config.local").write_text("['remote \"a\"']\n    password = abc\n", encoding="utf-8")
    refuse_tracked_secrets(configured(project, "['remote \"a\"']\n    url = ssh://host/store\n    ask_password = true\n"))
