"""A file elsewhere, read through fsspec: which version there is, and its bytes."""

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

BLOCK = 4_000_000  # bytes asked for at once, each within `patience`
BAR = {"unit": "B", "unit_scale": True, "mininterval": 1}


def identify_file(url: str) -> Identity:
    """Which version of a file there is now.

    Raises:
        InputError: no such file, no permission, not a file, or it has no version.
        UnansweredError: nobody answered.
    """
    with client_errors(url):
        place, path = open_store(url)
        return identity(url, path, place)


def download(wanted: Identity, target: Path) -> None:
    """Writes one version of a file to `target`.

    Raises:
        InputError: another version lies there, or none that can be read.
        UnansweredError: nobody answered.
    """
    with client_errors(wanted.url):
        place, path = open_store(wanted.url)
        if isinstance(place, HTTPFileSystem):  # not every server sends a part of a file
            place.get_file(path, str(target), callback=TqdmCallback(tqdm_kwargs={**BAR, "desc": target.name}))
        else:
            with target.open("wb") as file:
                copy_blocks(place, path, wanted, file, target.name)
        found = identity(wanted.url, path, place)
    if found != wanted or wanted.size not in (None, target.stat().st_size):
        raise InputError(f"{wanted.url}: was changed while it was read; run the same again")


def copy_blocks(place: AsyncFileSystem, path: str, wanted: Identity, file: BinaryIO, name: str) -> None:
    """Writes a file block by block, so that one that does not come is noticed."""
    size = wanted.size or 0
    with tqdm(total=size, desc=name, **BAR) as bar:
        for start in range(0, size, BLOCK):
            block = place.cat_file(path, start=start, end=min(start + BLOCK, size), timeout=response_timeout())
            file.write(block)
            bar.update(len(block))


def open_store(url: str) -> tuple[AsyncFileSystem, str]:
    """The store that an address names, and the file's path in it."""
    parts = urlsplit(url)
    if parts.scheme == "azureml":
        account, path = resolve(url)
        return filesystem(account), path
    if parts.scheme in BLOB:
        container, _, host = parts.netloc.rpartition("@")
        name, _, domain = host.partition(".") if container else (None, "", "")
        named = account_from_environment(url, name, domain.partition(".")[2] or CLOUD)
        return filesystem(named), f"{container or host}{parts.path}"
    if parts.scheme == "s3":
        from s3fs import S3FileSystem

        limits = dict.fromkeys(("connect_timeout", "read_timeout"), response_timeout())
        return S3FileSystem(skip_instance_cache=True, use_listings_cache=False, config_kwargs=limits), url
    limit = aiohttp.ClientTimeout(total=None, sock_connect=response_timeout(), sock_read=response_timeout())
    client = {"timeout": limit, "trust_env": True, "middlewares": (redirect_middleware(url),)}
    return HTTPFileSystem(skip_instance_cache=True, client_kwargs=client), url


def redirect_middleware(url: str) -> aiohttp.ClientMiddlewareType:
    """What looks at every request for a file before it is sent, and so at redirects; aiohttp keeps credentials to their host."""
    first = URL(url)

    async def checked(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        if request.url.origin() != first.origin():
            await check_redirect(first, request.url)
        return await send(request)

    return checked


async def check_redirect(first: URL, target: URL) -> None:
    """Refuses a redirect on which the rows could be changed on the way, or which leads into a private network from outside.

    Raises:
        RedirectError: it is one.
    """
    if target.scheme != "https" and (first.scheme == "https" or target.host not in LOOPBACK):
        raise RedirectError(f"{first}: is redirected to {target.origin()}; over http anyone on the way can change the rows")
    if await is_private(target) and not await is_private(first):
        raise RedirectError(
            f"{first}: is redirected to {target.origin()}, which is in a private network; download the file yourself"
        )


async def is_private(url: URL) -> bool:
    """Whether an address is one of this machine or of a private network; a name is looked up."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except OSError:  # a proxy may know it
        return False
    return any(not ip_address(str(address[0]).partition("%")[0]).is_global for *_, address in found)


def check_container(url: str, path: str, place: AsyncFileSystem) -> None:
    """Raises InputError where it is not the file that is missing but all that it lies in."""
    container = path.removeprefix("s3://").partition("/")[0]
    try:
        place.info(container, timeout=response_timeout())
    except FileNotFoundError as error:
        raise InputError(f"{url}: there is no {'bucket' if path.startswith('s3://') else 'container'} {container}") from error
    except Exception:  # who may read files need not be allowed to ask for the container
        return


def identity(url: str, path: str, place: AsyncFileSystem) -> Identity:
    """What the store says about a file."""
    try:
        said: dict[str, Any] = place.info(path, timeout=response_timeout())
    except FileNotFoundError:
        if not isinstance(place, HTTPFileSystem):
            check_container(url, path, place)
        raise
    if said["type"] == "directory":
        raise InputError(f"{url}: is a folder; name each file of rows")
    version = said.get("etag") or said.get("ETag") or said.get("Last-Modified")
    if not version:
        raise InputError(f"{url}: the server does not tell versions apart (no ETag); download the file and name its path")
    md5 = (said.get("content_settings") or {}).get("content_md5")
    return Identity(url, said["size"], version.removeprefix("W/").strip('"'), bytes(md5).hex() if md5 else None)
