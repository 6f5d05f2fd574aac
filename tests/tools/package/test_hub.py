"""make package FOR=hub: one commit with the card, the model and its answers, to a hub on this machine."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi

from benchmarks.serve.letters_model import PROMPT
from tests.hub import COMMIT, UploadHub, client_environment
from tests.loopback import running
from tests.tools.serve.prompts import with_prompt
from tools.package import hub as package_hub
from tools.package.hub import upload
from tunepress.core.errors import InputError

CARD = f"---\nlicense: mit\nmodel-index: []\n---\n\n# Tone\n\n```\n{PROMPT.prompt}\n```\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    with running(UploadHub()) as server:
        yield server


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    """A model with its card and conformance.jsonl beside it."""
    (tmp_path / "MODEL_CARD.md").write_text(CARD, encoding="utf-8")
    (tmp_path / "conformance.jsonl").write_text('{"model": {}}\n', encoding="utf-8")
    return with_prompt(model, PROMPT, tmp_path / "models-onnx")


def api(hub: UploadHub, token: str | None = UploadHub.token) -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


def test_card_model_and_answers_arrive_in_one_commit(hub: UploadHub, folder: Path) -> None:
    before = sorted(path.name for path in folder.parent.iterdir())
    assert upload(api(hub), "me/tone", folder, public=False) == f"{hub.url}/me/tone/commit/{COMMIT}"
    expected = {f"onnx/{path.name}": path.read_bytes() for path in folder.iterdir()}
    expected |= {"README.md": CARD.encode(), "conformance.jsonl": b'{"model": {}}\n'}
    assert (hub.repos, hub.public, hub.commits) == ({"me/tone": expected}, set(), 1)
    assert sorted(path.name for path in folder.parent.iterdir()) == before


def test_a_later_upload_deletes_what_the_model_no_longer_has(hub: UploadHub, folder: Path) -> None:
    upload(api(hub), "me/tone", folder, public=False)
    hub.repos["me/tone"] |= {"onnx/adapter.onnx_adapter": b"old", "notes.txt": b"mine"}
    (folder.parent / "conformance.jsonl").unlink()
    upload(api(hub), "me/tone", folder, public=False)
    files = {f"onnx/{path.name}" for path in folder.iterdir()} | {"README.md", "notes.txt"}
    assert (set(hub.repos["me/tone"]), hub.commits) == (files, 2)


def test_a_public_repo_must_be_meant(hub: UploadHub, folder: Path) -> None:
    upload(api(hub), "me/tone", folder, public=True)
    assert hub.public == {"me/tone"}
    with pytest.raises(InputError, match=r"^me/tone: exists and is public; upload to it with ARGS=--public, or choose another"):
        upload(api(hub), "me/tone", folder, public=False)
    assert hub.commits == 1
    upload(api(hub), "me/tone", folder, public=True)
    assert hub.commits == 2


@pytest.mark.parametrize("repo_id", ["tone", "a/b/c", "me/..", "me/-x", ""])
def test_a_name_that_no_repo_has_is_refused(repo_id: str, hub: UploadHub, folder: Path) -> None:
    with pytest.raises(InputError, match=rf"^REPO={re.escape(repo_id)}: must be an owner and a name, such as me/tone$"):
        upload(api(hub), repo_id, folder, public=False)
    assert hub.repos == {}


@pytest.mark.parametrize(
    ("statuses", "repo_id", "message"),
    [
        ({}, "you/tone", r"^you/tone: the token may not write there \(403\); use one with the permission to write"),
        ({"/preupload/": 403}, "me/tone", r"^me/tone: the token may not write there \(403\)"),
        ({"/commit/": 500}, "me/tone", r"^me/tone: the Hub refused the upload \(as the test says\); run the command again$"),
        ({"/lfs/": 400}, "me/tone", r"^me/tone: the Hub refused the upload \(as the test says\); run the command again$"),
    ],
)
def test_a_refusal_is_one_line_and_nothing_is_committed(
    statuses: dict[str, int], repo_id: str, message: str, hub: UploadHub, folder: Path
) -> None:
    hub.statuses = statuses
    with pytest.raises(InputError, match=message) as refused:
        upload(api(hub), repo_id, folder, public=False)
    assert "\n" not in str(refused.value)
    assert hub.repos in ({}, {"me/tone": {}})


def test_a_token_is_needed_and_must_be_known(hub: UploadHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^me/tone: the Hub does not accept the token \(401\); set HF_TOKEN to one with"):
        upload(api(hub, "of another"), "me/tone", folder, public=False)
    monkeypatch.setattr(package_hub, "get_token", lambda: None)
    with pytest.raises(InputError, match=r"^no token of the Hub; set HF_TOKEN"):
        upload(api(hub, None), "me/tone", folder, public=False)


def test_a_hub_out_of_reach_is_told_in_one_line(folder: Path) -> None:
    with pytest.raises(InputError, match=r"^me/tone: the upload failed \(.+\); run the command again$"):
        upload(HfApi(endpoint="http://127.0.0.1:9", token=UploadHub.token), "me/tone", folder, public=False)


def test_the_card_must_be_that_of_the_model(hub: UploadHub, folder: Path) -> None:
    card = folder.with_name("MODEL_CARD.md")
    card.write_text("# Another model\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"MODEL_CARD\.md: does not show the prompt of .*; run `dvc repro`$"):
        upload(api(hub), "me/tone", folder, public=False)
    card.unlink()
    with pytest.raises(InputError, match=r"MODEL_CARD\.md: not found; run `dvc repro`$"):
        upload(api(hub), "me/tone", folder, public=False)
    assert hub.repos == {}


@pytest.mark.slow
def test_the_command_finds_hub_and_token_in_the_environment(hub: UploadHub, folder: Path, root: Path, tmp_path: Path) -> None:
    environment = client_environment(hub.url, tmp_path, root) | {"HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "tools.package", "hub", "--repo=me/tone", f"--model={folder}"]

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=120)

    done = run(HF_TOKEN=hub.token)
    assert (done.returncode, done.stdout) == (0, f"package: {hub.url}/me/tone/commit/{COMMIT}\n"), done.stderr
    assert json.loads(hub.repos["me/tone"]["onnx/prompt.json"])["prompt"] == PROMPT.prompt
    for variables, message in (
        ({}, "package: no token of the Hub; "),
        ({"HF_TOKEN": "x"}, "package: me/tone: the Hub does not accept the token (401); "),
        ({"HF_TOKEN": "x", "HF_ENDPOINT": "http://127.0.0.1:9"}, "package: me/tone: the upload failed ("),
        ({"HF_TOKEN": "x", "HF_HUB_OFFLINE": "1"}, "package: me/tone: the upload failed ("),
    ):
        done = run(**variables)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(message), done.stderr
        assert len(done.stderr.splitlines()) == 1
