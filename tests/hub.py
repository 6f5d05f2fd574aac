"""The Hugging Face Hub on this machine: one repo to download, and repos to upload to."""

import base64
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


class UploadHub(ThreadingHTTPServer):
    """The Hub's API for uploads: repos with their files, and commits as they arrive."""

    daemon_threads = True
    token = "of a test"
    owner = "me"  # who has the token

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), UploadHandler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.public: set[str] = set()
        self.blobs: dict[str, bytes] = {}  # large files by sha256, before they are committed
        self.commits = 0
        self.statuses: dict[str, int] = {}  # in place of an answer, by a part of the path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class UploadHandler(BaseHTTPRequestHandler):
    """Answers what `create_repo`, `model_info` and `create_commit` of huggingface_hub 2.4 ask without hf_xet."""

    server: UploadHub

    def do_GET(self) -> None:
        self.handle_request(b"")

    def do_POST(self) -> None:
        self.handle_request(self.rfile.read(int(self.headers["Content-Length"])))

    def do_PUT(self) -> None:
        self.server.blobs[self.path.removeprefix("/blobs/")] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer({})

    def handle_request(self, body: bytes) -> None:
        path = self.path.partition("?")[0]
        status = next((status for part, status in self.server.statuses.items() if part in path), None)
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self.answer({"error": "Invalid username or password."}, 401)
        elif status:
            self.answer({"error": "as the test says"}, status)
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            self.answer({"files": [self.upload_mode(file) for file in json.loads(body)["files"]]})
        elif path.endswith("/info/lfs/objects/batch"):
            self.answer({"transfer": "basic", "objects": [self.upload_action(blob) for blob in json.loads(body)["objects"]]})
        elif path.endswith("/commit/main"):
            self.commit(path.removeprefix("/api/models/").removesuffix("/commit/main"), body)
        elif path.removeprefix("/api/models/") in self.server.repos:
            self.answer(self.described(path.removeprefix("/api/models/")))
        else:
            self.answer({"error": "Not found"}, 404)

    def create(self, request: dict[str, Any]) -> None:
        name = f"{request['organization']}/{request['name']}"
        exists = name in self.server.repos
        if request["organization"] != self.server.owner:
            self.answer({"error": "You don't have the rights to create a model under this namespace"}, 403)
            return
        self.server.repos.setdefault(name, {})
        if not exists and request.get("visibility") == "public":
            self.server.public.add(name)
        self.answer({"url": f"{self.server.url}/{name}"}, 409 if exists else 200)

    def described(self, name: str) -> dict[str, Any]:
        siblings = [{"rfilename": file} for file in self.server.repos[name]]
        return {"id": name, "sha": COMMIT, "siblings": siblings, "private": name not in self.server.public, "tags": []}

    def upload_mode(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if ".onnx" in file["path"] else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}

    def upload_action(self, blob: dict[str, Any]) -> dict[str, Any]:
        return {**blob, "actions": {"upload": {"href": f"{self.server.url}/blobs/{blob['oid']}"}}}

    def commit(self, name: str, body: bytes) -> None:
        files = dict(self.server.repos[name])
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        self.server.repos[name] = files
        self.server.commits += 1
        self.answer({"commitUrl": f"{self.server.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})

    def answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 401:
            self.send_header("X-Error-Message", "Invalid credentials in Authorization header")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
