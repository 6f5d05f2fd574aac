"""Azure Blob Storage on this machine: an Azurite of its own for each test module.

The account's key is new each time, so that a test which looks for it finds nothing but a leak.
"""

import base64
import os
import re
import secrets
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from azure.storage.blob import AccountSasPermissions, BlobServiceClient, ContainerClient, ResourceTypes, generate_account_sas

SERVER = Path(__file__).parent / "node_modules/azurite/dist/src/blob/main.js"
NEEDED = {"node": shutil.which("node") is not None, "tests/azure/node_modules": SERVER.exists()}
MISSING = [name for name, is_there in NEEDED.items() if not is_there]
ACCOUNT = "tunepress"


class Azurite:
    """A server on a port and a folder that it keeps over `stop` and `start`.

    Args:
        folder: where it keeps blobs.
        options: more of its command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.account_name = ACCOUNT
        self.account_key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.port = 0  # the first start finds a free one
        self._server: subprocess.Popen[str] | None = None

    @property
    def account_url(self) -> str:
        """The account's address."""
        return f"http://127.0.0.1:{self.port}/{self.account_name}"

    @property
    def connection_string(self) -> str:
        """All that a client needs, the key included."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account_name};"
            f"AccountKey={self.account_key};BlobEndpoint={self.account_url};"
        )

    @property
    def sas_token(self) -> str:
        """A token for everything in the account, for an hour."""
        return generate_account_sas(
            account_name=self.account_name,
            account_key=self.account_key,
            resource_types=ResourceTypes(service=True, container=True, object=True),
            permission=AccountSasPermissions(read=True, write=True, list=True, create=True, add=True, delete=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )

    def start(self) -> None:
        """Starts the server, on the port it had before; returns when it listens."""
        options = ["--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--location", str(self.folder)]
        self._server = subprocess.Popen(
            ["node", str(SERVER), *options, "--skipApiVersionCheck", "--silent", "--disableTelemetry", *self.options],
            env=os.environ | {"AZURITE_ACCOUNTS": f"{self.account_name}:{self.account_key}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._server.stdout is not None
        output = ""
        for line in self._server.stdout:
            output += line
            if match := re.search(r"successfully listens on https?://127\.0\.0\.1:(\d+)", line):
                self.port = int(match[1])
                return
        raise RuntimeError(f"Azurite does not start: {output}")

    def stop(self) -> None:
        """Ends the server; what it holds stays in its folder."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait(timeout=30)
            assert self._server.stdout is not None
            self._server.stdout.close()
            self._server = None

    def container(self, name: str) -> ContainerClient:
        """A container, made if there is none."""
        client = BlobServiceClient.from_connection_string(self.connection_string).get_container_client(name)
        if not client.exists():
            client.create_container()
        return client

    def upload(self, container: str, path: str, content: bytes) -> str:
        """Puts a blob there, in place of one of that name; gives its etag."""
        blob = self.container(container).upload_blob(path, content, overwrite=True)
        return str(blob.get_blob_properties().etag)
