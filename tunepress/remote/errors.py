"""Errors of the clients of Azure, S3 and https, told apart: nobody answered, or the answer was no."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ssl import SSLCertVerificationError
from urllib.parse import urlsplit

from aiohttp import ClientConnectionError

from tunepress.core.errors import InputError, one_line
from tunepress.remote.addresses import blob_url

VARIABLE = "TUNEPRESS_NETWORK_SECONDS"
SECONDS = "20"  # for one answer, where the variable has no value; the stores' own clients try for minutes

# Errors of clients that are not installed by default, so they are told by name.
WITHOUT_CREDENTIALS = {"ClientAuthenticationError", "CredentialUnavailableError", "NoCredentialsError", "PartialCredentialsError"}
WITHOUT_CONNECTION = {"ServiceRequestError", "ServiceResponseError", "EndpointConnectionError", "ConnectTimeoutError"}


class UnansweredError(Exception):
    """Nobody said whether the file has changed: no network, no answer in time, or nobody signed in to ask."""


class RedirectError(InputError):
    """A server sends the request where it must not go."""


@contextmanager
def client_errors(url: str) -> Iterator[None]:
    """Turns every error of a client into one of two.

    Raises:
        InputError: what the place that was asked says against it.
        UnansweredError: it did not answer, or could not be asked.
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
    """How long one answer may take, in seconds.

    Raises:
        InputError: the environment says something else than a number.
    """
    said = os.environ.get(VARIABLE) or SECONDS
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:  # nan is not either
        raise InputError(f"{VARIABLE}: {said!r} is no number of seconds")
    return seconds


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it, the latest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def translate(url: str, errors: list[BaseException]) -> Exception:
    """What a client's error says about a file, in one line."""
    if refusal := next((error for error in errors if isinstance(error, RedirectError)), None):
        return refusal  # of a redirect, which fsspec has wrapped
    status = next(filter(None, map(status_of, errors)), None)
    names = {type(error).__name__ for error in errors}
    if status is None and names & WITHOUT_CREDENTIALS:
        return UnansweredError("no credentials were found; sign in, or set them in the environment (docs/azure-rows.md)")
    if any(isinstance(error, SSLCertVerificationError) for error in errors):
        return UnansweredError("the certificate of its server is not trusted; that of a proxy belongs in SSL_CERT_FILE")
    if any(isinstance(error, TimeoutError) for error in errors):
        return UnansweredError(f"no answer within {response_timeout():g} s ({VARIABLE})")
    if status is None and (
        names & WITHOUT_CONNECTION or any(isinstance(e, ClientConnectionError | ConnectionError) for e in errors)
    ):
        return UnansweredError("out of reach, is there a network?")
    if status is not None and (status >= 500 or status in {408, 429}):
        return UnansweredError(f"the server is not able to answer (status {status})")
    if status in {401, 403, 409} or isinstance(errors[0], PermissionError):
        return InputError(f"{url}: no permission to read it{credentials_hint(url)}")
    if status in {404, 410} or isinstance(errors[0], FileNotFoundError):
        return InputError(f"{url}: no such file there{credentials_hint(url)}")
    return InputError(f"{url}: could not be read ({one_line(errors[0])})")


def is_unanswered(error: BaseException) -> bool:
    """Whether an error came to be because nobody answered."""
    return isinstance(translate("", list(causes(error))), UnansweredError)


def status_of(error: BaseException) -> int | None:
    """The status of HTTP in an error of aiohttp or of Azure's clients."""
    status = getattr(error, "status_code", None) or getattr(error, "status", None)
    return status if isinstance(status, int) else None


def credentials_hint(url: str) -> str:
    """How to ask with credentials for a blob that https asks for without."""
    blob = blob_url(urlsplit(url))
    return f"; if it is not public, write {blob}" if blob else ""
