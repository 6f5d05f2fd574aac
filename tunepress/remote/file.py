"""Remote files, read with fsspec: their version and their content."""

import asyncio
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import aiohttp
from fsspec.asyn import AsyncFileSystem
from fsspec.callbacks import TqdmCallback
from fsspec.implementations.http import HTTPFileSystem
from tqdm import tqdm
from yarl import URL

from tunepress.core.errors import InputError
from tunepress.remote.addresses import BLOB, LOOPBACK
from tunepress.remote.collected import Identity
from tunepress.remote.datastore import resolve
from tunepress.remote.errors import RedirectError, client_errors, response_timeout
from tunepress.remote.storage_account import CLOUD, account_from_environment, filesystem

BLOCK = 4_000_000  # bytes of a request, each with the timeout of `response_timeout`
BAR = {"unit": "B", "unit_scale": True, "mininterval": 1}


def identify_file(url: str) -> Identity:
    """The current version of a file.

    Raises:
        InputError: the file does not exist, is a folder or has no version, or permission is missing.
        UnansweredError: the server did not answer.
    """
    with client_errors(url):
        store, path = open_store(url)
        return identity(url, path, store)


def download(version: Identity, target: Path) -> None:
    """Downloads one version of a file to `target`.

    Raises:
        InputError: the file has another version now, or cannot be read.
        UnansweredError: the server did not answer.
    """
    with client_errors(version.url):
        store, path = open_store(version.url)
        if isinstance(store, HTTPFileSystem):  # not every server supports range requests
            store.get_file(path, str(target), callback=TqdmCallback(tqdm_kwargs={**BAR, "desc": target.name}))
        else:
            with target.open("wb") as file:
                copy_blocks(store, path, version.size or 0, file, target.name)
        current = identity(version.url, path, store)
    if current != version or version.size not in (None, target.stat().st_size):
        raise InputError(f"{version.url}: was changed while it was read; run the command again")


def copy_blocks(store: AsyncFileSystem, path: str, size: int, file: BinaryIO, name: str) -> None:
    """Copies a file block by block, so that the timeout applies to each block."""
    with tqdm(total=size, desc=name, **BAR) as bar:
        for start in range(0, size, BLOCK):
            block = store.cat_file(path, start=start, end=min(start + BLOCK, size), timeout=response_timeout())
            file.write(block)
            bar.update(len(block))


def open_store(url: str) -> tuple[AsyncFileSystem, str]:
    """The file system of an address, and the path of the file in it."""
    parts = urlsplit(url)
    if parts.scheme == "azureml":
        account, path = resolve(url)
        return filesystem(account), path
    if parts.scheme in BLOB:
        container, _, host = parts.netloc.rpartition("@")
        name, _, domain = host.partition(".") if container else (None, "", "")
        storage = account_from_environment(url, name, domain.partition(".")[2] or CLOUD)
        return filesystem(storage), f"{container or host}{parts.path}"
    if parts.scheme == "s3":
        from s3fs import S3FileSystem

        limits = dict.fromkeys(("connect_timeout", "read_timeout"), response_timeout())
        return S3FileSystem(skip_instance_cache=True, use_listings_cache=False, config_kwargs=limits), url
    limit = aiohttp.ClientTimeout(total=None, sock_connect=response_timeout(), sock_read=response_timeout())
    client = {"timeout": limit, "trust_env": True, "middlewares": (redirect_middleware(url),)}
    return HTTPFileSystem(skip_instance_cache=True, client_kwargs=client), url


def redirect_middleware(url: str) -> aiohttp.ClientMiddlewareType:
    """Middleware that checks the target of each redirect; aiohttp sends credentials only to their own host."""
    first = URL(url)

    async def check(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if request.url.origin() != first.origin():
            await check_redirect(first, request.url)
        return await send(request)

    return check


async def check_redirect(first: URL, target: URL) -> None:
    """Checks a redirect.

    Raises:
        RedirectError: the redirect leads to http, where the rows could be changed on the way, or from a public network into a
            private one.
    """
    if target.scheme != "https" and (first.scheme == "https" or target.host not in LOOPBACK):
        raise RedirectError(f"{first}: is redirected to {target.origin()}; over http anyone on the way can change the rows")
    if await is_private(target) and not await is_private(first):
        raise RedirectError(
            f"{first}: is redirected to {target.origin()}, which is in a private network; download the file yourself"
        )


async def is_private(url: URL) -> bool:
    """Whether the host of an address, which is resolved, is this machine or in a private network."""
    try:
        addresses = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except OSError:  # a proxy may resolve it
        return False
    return any(not ip_address(str(address[0]).partition("%")[0]).is_global for *_, address in addresses)


def check_container(url: str, path: str, store: AsyncFileSystem) -> None:
    """Raises InputError if the container or bucket of a missing file does not exist."""
    container = path.removeprefix("s3://").partition("/")[0]
    try:
        store.info(container, timeout=response_timeout())
    except FileNotFoundError as error:
        raise InputError(f"{url}: there is no {'bucket' if path.startswith('s3://') else 'container'} {container}") from error
    except Exception:  # an account may be allowed to read files but not to look up the container
        return


def identity(url: str, path: str, store: AsyncFileSystem) -> Identity:
    """The version of a file according to its store."""
    try:
        info: dict[str, Any] = store.info(path, timeout=response_timeout())
    except FileNotFoundError:
        if not isinstance(store, HTTPFileSystem):
            check_container(url, path, store)
        raise
    if info["type"] == "directory":
        raise InputError(f"{url}: is a folder; name each file of rows")
    version = info.get("etag") or info.get("ETag") or info.get("Last-Modified")
    if not version:
        raise InputError(f"{url}: the server does not tell versions apart (no ETag); download the file and name its path")
    md5 = (info.get("content_settings") or {}).get("content_md5")
    return Identity(url, info["size"], version.removeprefix("W/").strip('"'), bytes(md5).hex() if md5 else None)
