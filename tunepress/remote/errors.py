"""Errors of the clients of Azure, S3 and https, translated: no answer, or an answer that is an error."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ssl import SSLCertVerificationError
from urllib.parse import urlsplit

from aiohttp import ClientConnectionError

from tunepress.core.errors import InputError, one_line
from tunepress.remote.addresses import blob_url

VARIABLE = "TUNEPRESS_NETWORK_SECONDS"
DEFAULT_SECONDS = "20"  # for one answer; the stores' own clients retry for minutes

# Errors of clients that are not installed by default, so they are recognized by name.
WITHOUT_CREDENTIALS = {"ClientAuthenticationError", "CredentialUnavailableError", "NoCredentialsError", "PartialCredentialsError"}
WITHOUT_CONNECTION = {"ServiceRequestError", "ServiceResponseError", "EndpointConnectionError", "ConnectTimeoutError"}


class UnansweredError(Exception):
    """Whether the file has changed is unknown: no network, no answer in time, or no credentials."""


class RedirectError(InputError):
    """A server redirects a request to a place that is not allowed."""


@contextmanager
def client_errors(url: str) -> Iterator[None]:
    """Translates every error of a client inside the block.

    Raises:
        InputError: the server rejected the request.
        UnansweredError: the server did not answer, or the request could not be sent.
    """
    try:
        yield
    except (InputError, UnansweredError):
        raise
    except ImportError as error:
        raise InputError(f"{url}: needs {error.name}, which is not installed; `make setup-azure` installs it") from error
    except Exception as error:
        raise translate(url, list(causes(error))) from error


def response_timeout() -> float:
    """The maximum duration of one answer in seconds, from the environment.

    Raises:
        InputError: the variable is not a positive number.
    """
    value = os.environ.get(VARIABLE) or DEFAULT_SECONDS
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:  # rejects nan too
        raise InputError(f"{VARIABLE}: must be a positive number of seconds, got {value!r}")
    return seconds


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes, the latest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def translate(url: str, errors: list[BaseException]) -> Exception:
    """Translates a client's error with its causes into one line about a file."""
    if redirect_error := next((error for error in errors if isinstance(error, RedirectError)), None):
        return redirect_error  # which fsspec has wrapped
    status = next(filter(None, map(status_of, errors)), None)
    names = {type(error).__name__ for error in errors}
    if status is None and names & WITHOUT_CREDENTIALS:
        return UnansweredError("no credentials found; sign in, or set them in the environment (docs/azure-rows.md)")
    if any(isinstance(error, SSLCertVerificationError) for error in errors):
        return UnansweredError("the server's certificate is not trusted; if it is a proxy's, set SSL_CERT_FILE")
    if any(isinstance(error, TimeoutError) for error in errors):
        return UnansweredError(f"no answer within {response_timeout():g} s ({VARIABLE})")
    if status is None and (
        names & WITHOUT_CONNECTION or any(isinstance(error, ClientConnectionError | ConnectionError) for error in errors)
    ):
        return UnansweredError("cannot be reached; check the network")
    if status is not None and (status >= 500 or status in {408, 429}):
        return UnansweredError(f"the server cannot answer (status {status})")
    if status in {401, 403, 409} or isinstance(errors[0], PermissionError):
        return InputError(f"{url}: no permission to read it{credentials_hint(url)}")
    if status in {404, 410} or isinstance(errors[0], FileNotFoundError):
        return InputError(f"{url}: no such file there{credentials_hint(url)}")
    return InputError(f"{url}: could not be read ({one_line(errors[0])})")


def is_unanswered(error: BaseException) -> bool:
    """Whether the cause of an error is that there was no answer."""
    return isinstance(translate("", list(causes(error))), UnansweredError)


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error of aiohttp or of Azure's clients."""
    status = getattr(error, "status_code", None) or getattr(error, "status", None)
    return status if isinstance(status, int) else None


def credentials_hint(url: str) -> str:
    """How to read a blob with credentials, if the address is an https address of one."""
    blob = blob_url(urlsplit(url))
    return f"; if it is not public, write {blob}" if blob else ""
