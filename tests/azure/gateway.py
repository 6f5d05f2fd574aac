"""Azurite at Azure's own address, for logins that name an account and no server: DVC then asks https://ACCOUNT.blob.core.windows.net.

Nothing of the clients is replaced. They find a proxy in the environment, as behind a company's firewall, which leads that
address to Azurite, and an authority that certifies it.
"""

import base64
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SUFFIX = ".blob.core.windows.net"


def certify(folder: Path) -> tuple[Path, Path]:
    """A certificate of its own authority for all storage accounts, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tunepress")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"*{SUFFIX}")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def token() -> str:
    """What Entra ID gives for Azure Storage, except its signature, which Azurite does not look at."""
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + 3600,
    }
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in [*parts, b"unsigned"])


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server of this process; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def proxy(port: int) -> type[BaseHTTPRequestHandler]:
    """Leads every storage account's address to a port of this machine, and no other address anywhere."""

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            if not self.path.partition(":")[0].endswith(SUFFIX):
                self.send_error(403)
                return
            self.send_response(200)
            self.end_headers()
            with socket.create_connection(("127.0.0.1", port)) as second:
                relay(self.connection, second)
            self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Proxy


def relay(first: socket.socket, second: socket.socket) -> None:
    """Hands on what either says until one has no more to say."""
    to = {first: second, second: first}
    while True:
        for source in select.select(list(to), [], [])[0]:
            data = source.recv(65536)
            if not data:
                return
            to[source].sendall(data)


class ManagedIdentity(BaseHTTPRequestHandler):
    """The endpoint that a machine in Azure has for its managed identity."""

    def do_GET(self) -> None:
        assert self.headers["X-IDENTITY-HEADER"] == "machine"
        (resource,) = parse_qs(urlsplit(self.path).query)["resource"]
        expires = str(int(time.time()) + 3600)
        answer = {"access_token": token(), "expires_on": expires, "resource": resource, "token_type": "Bearer"}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass
