"""The Hugging Face Hub on this machine."""

import hashlib
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def client_environment(endpoint: str, folder: Path, root: Path) -> dict[str, str]:
    """The environment of a process of this project that finds the hub at `endpoint` and has its cache in `folder`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return inherited | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder / "hf"),
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": str(root),
    }


class Hub(ThreadingHTTPServer):
    """The Hugging Face Hub's API for one repo at one commit, and what was asked of it."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files = {file.name: file.read_bytes() for file in folder.iterdir()}
        self.files |= {"pytorch_model.bin": b"pickle", "onnx/model.safetensors": b"of another runtime", "README.md": b"card"}
        self.files |= {"consolidated.safetensors": b"the same weights"}
        self.sent: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        name = path.removeprefix(f"/org/tiny/resolve/{COMMIT}/")
        if path in ("/api/models/org/tiny/revision/main", f"/api/models/org/tiny/revision/{COMMIT}"):
            self.answer(json.dumps(self.described()).encode())
        elif path == f"/api/models/org/tiny/tree/{COMMIT}":
            self.answer(json.dumps([self.listed(name) for name in self.server.files]).encode())
        elif name in self.server.files:
            self.answer(self.server.files[name], name)
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def described(self) -> dict[str, Any]:
        files = [{"rfilename": name, "size": len(content)} for name, content in self.server.files.items()]
        return {"id": "org/tiny", "sha": COMMIT, "siblings": files, "cardData": {"license": "apache-2.0"}, "tags": []}

    def listed(self, name: str) -> dict[str, Any]:
        content = self.server.files[name]
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def answer(self, content: bytes, name: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
            self.server.sent += [name] if name else []

    def log_message(self, format: str, *args: Any) -> None:
        pass
