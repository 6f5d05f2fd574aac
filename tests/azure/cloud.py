"""Azure on this machine: answers what Azure's packages ask of its addresses, through a proxy on the loopback interface.

The packages are the real ones and speak TLS to https://management.azure.com and so on; only where the bytes go differs.
Either the environment says so (`Cloud.environment`, for this process or another), or azure-core's transport does
(`Cloud.transport`, for MLClient's public argument `transport`).
"""

import http.client
import json
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from azure.core.pipeline.transport import RequestsTransport

from tests.azure.azurite import Azurite
from tests.azure.certificates import Authority
from tests.loopback import running

TENANT = "11111111-1111-1111-1111-111111111111"
TOKEN = "token-of-the-tests"
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}  # headers of one connection, not of what it carries


@dataclass
class Request:
    """What was asked."""

    method: str
    url: str  # with the query
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """What is said to it."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def say(content: Any, status: int = 200) -> Answer:
    """Content as JSON."""
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})


def refuse(status: int, code: str, message: str) -> Answer:
    """An error as Azure Resource Manager words them."""
    return say({"error": {"code": code, "message": message}}, status)


Route = Callable[..., Answer]


class Cloud(ThreadingHTTPServer):
    """A proxy that answers in place of Azure.

    `route` adds an address. The last one added that fits answers. `failures` holds the addresses that none fits, and what a
    route raised: errors of the test, and not of what it tests.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.authority = Authority(folder)
        self.routes: list[tuple[str, re.Pattern[str], Route]] = []
        self.requests: list[Request] = []
        self.failures: list[str] = []
        self.blobs: Azurite | None = None  # what goes to <its account>.blob.core.windows.net goes there
        self.reachable = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What sends a process here and logs it in, with the secret of an application."""
        proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), self.url)
        trust = {name: str(self.authority.path) for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")}
        login = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": "client", "AZURE_CLIENT_SECRET": "secret-of-the-tests"}
        return proxies | trust | login | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    @property
    def transport(self) -> RequestsTransport:
        """A transport of azure-core that sends every request here."""
        session = requests.Session()
        session.proxies = {"https": self.url}
        return RequestsTransport(
            session=session, session_owner=False, use_env_settings=False, connection_verify=str(self.authority.path)
        )

    def route(self, method: str, pattern: str, answer: Route) -> None:
        """Has `answer(request, **groups)` speak for URLs that `pattern` fits as a whole, the query left out."""
        self.routes.append((method, re.compile(pattern), answer))

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        try:
            return self.routed(request)
        except Exception:
            self.failures.append(f"{request.method} {request.url}: {traceback.format_exc()}")
            return refuse(400, "Failure", "a route of the tests failed")

    def routed(self, request: Request) -> Answer:
        address = request.url.partition("?")[0]
        for method, pattern, answer in reversed(self.routes):
            if method == request.method and (fits := pattern.fullmatch(address)):
                return answer(request, **fits.groupdict())
        if self.blobs and address.startswith(f"https://{self.blobs.account_name}.blob.core.windows.net/"):
            return forward(request, self.blobs)
        raise LookupError("no route for it")


def forward(request: Request, blobs: Azurite) -> Answer:
    """Has a blob server answer, which finds the account in the Host header, as Azure does. Our token stands for all rights."""
    parts = urlsplit(request.url)
    query, headers = parts.query, {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
    if headers.get("Authorization") == f"Bearer {TOKEN}":
        del headers["Authorization"]
        query = "&".join(filter(None, (query, blobs.sas_token)))
    connection = http.client.HTTPConnection("127.0.0.1", blobs.port, timeout=30)
    with closing(connection):
        connection.request(request.method, f"{parts.path}?{query}", request.body or None, headers)
        response = connection.getresponse()
        kept = {name: value for name, value in response.getheaders() if name.lower() not in HOP_BY_HOP}
        return Answer(response.status, response.read(), kept)


class Handler(BaseHTTPRequestHandler):
    """One connection: CONNECT, then TLS as the host that was asked for."""

    server: Cloud
    protocol_version = "HTTP/1.1"
    host = ""

    def do_CONNECT(self) -> None:
        if not self.server.reachable:
            self.close_connection = True
            self.send_error(503)
            return
        self.host = self.path.partition(":")[0]
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.authority.context(self.host).wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def handle_request(self) -> None:
        request = Request(self.command, f"https://{self.host}{self.path}", dict(self.headers.items()), self.content())
        answer = self.server.answer(request)
        self.send_response_only(answer.status)
        length = (
            {} if any(name.lower() == "content-length" for name in answer.headers) else {"Content-Length": str(len(answer.body))}
        )
        for name, value in {**answer.headers, **length}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request  # noqa: N815  (as the library names them)

    def content(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self.chunks())
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[Cloud]:
    """A cloud that knows how to log in, and nothing else."""
    with running(Cloud(folder)) as cloud:
        login(cloud)
        yield cloud


def login(cloud: Cloud) -> None:
    """Microsoft Entra, which gives every application TOKEN whose secret is the environment's."""
    authority = f"https://login.microsoftonline.com/{TENANT}"

    def token(request: Request) -> Answer:
        if b"client_secret=secret-of-the-tests" in request.body:
            return say({"token_type": "Bearer", "expires_in": 3600, "access_token": TOKEN})
        description = (
            "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent is the secret value.\r\nTrace ID: 1"
        )
        return say({"error": "invalid_client", "error_description": description}, 401)

    configuration = {
        "issuer": f"{authority}/v2.0",
        "authorization_endpoint": f"{authority}/oauth2/v2.0/authorize",
        "token_endpoint": f"{authority}/oauth2/v2.0/token",
    }
    cloud.route("GET", f"{authority}/v2.0/.well-known/openid-configuration", lambda request: say(configuration))
    discovery = {"tenant_discovery_endpoint": f"{authority}/v2.0/.well-known/openid-configuration", "metadata": []}
    cloud.route("GET", "https://login.microsoftonline.com/common/discovery/instance", lambda request: say(discovery))
    cloud.route("POST", f"{authority}/oauth2/v2.0/token", token)
