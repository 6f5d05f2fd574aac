"""What happens around every route: the API key, limits on the body, and clients that disconnect."""

import asyncio
import hmac
from collections.abc import Callable, Coroutine
from contextlib import suppress
from email.message import Message
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from tools.serve.responses import RequestError
from tools.serve.service import Service

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Result = TypeVar("Result")
CLIENT_CLOSED_REQUEST = 499  # nginx's status for it; only the metrics see it


def route_class(service: Service) -> type[APIRoute]:
    """The class of the routes that need the API key and read a JSON body."""

    class Route(APIRoute):
        def get_route_handler(self) -> Handler:
            """Wraps the handler in checks that run before the body is read."""
            inner = super().get_route_handler()

            async def handler(request: Request) -> Response:
                json_request = JsonRequest(request.scope, request.receive)
                json_request.service = service
                if service.closing:  # and so will the connection be: closed with a body unread, it would lose the answer
                    with suppress(RequestError):
                        await json_request.body()
                service.check_open()
                check_key(request, service.settings.api_key)
                return await inner(json_request)

            return handler

    return Route


def check_key(request: Request, key: str | None) -> None:
    """Raises RequestError unless the request has the key, if one is set."""
    if key is None:
        return
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    same = hmac.compare_digest(credentials.strip().encode(), key.encode())  # in constant time
    if not (same and scheme.lower() == "bearer"):
        raise RequestError(
            401,
            "this server needs an API key, as Authorization: Bearer ...",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


class JsonRequest(Request):
    """A request whose body must be JSON in UTF-8, within the limits on its length and duration."""

    service: Service

    async def body(self) -> bytes:
        """Reads the whole body.

        Raises:
            RequestError: it has another type, is too long or too slow.
        """
        if not hasattr(self, "_body"):
            header = Message()
            header["content-type"] = self.headers.get("content-type", "none")
            if header.get_content_type() != "application/json":
                raise RequestError(415, "the body must be JSON, with the header Content-Type: application/json")
            try:
                async with asyncio.timeout(self.service.settings.client_timeout):
                    self._body = await self._read()
            except TimeoutError:
                raise RequestError(408, "the body was sent too slowly", headers={"Connection": "close"}) from None
        return self._body

    async def json(self) -> Any:
        """Parses the body.

        Raises:
            RequestError: it is not JSON.
        """
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise RequestError(400, f"the body is not JSON in UTF-8 ({error})", code="invalid_json") from error

    async def _read(self) -> bytes:
        max_body = self.service.settings.max_body
        content_length = self.headers.get("content-length", "")
        body = bytearray()
        too_long = content_length.isdigit() and len(content_length) < 20 and int(content_length) > max_body
        if not too_long:
            async for chunk in self.stream():
                body += chunk
                if len(body) > max_body:
                    too_long = True
                    break
        if too_long:
            reason = f"the body has more than {max_body} bytes"
            raise RequestError(413, reason, code="body_too_long", headers={"Connection": "close"})
        if not body:
            raise RequestError(400, "the body is empty; it must be a JSON object")
        return bytes(body)


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result | Response:
    """Returns the result of `work`, which is cancelled if the client disconnects first."""
    working, listening = asyncio.ensure_future(work), asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else Response(status_code=CLIENT_CLOSED_REQUEST)
    finally:
        working.cancel()
        listening.cancel()


async def disconnected(request: Request) -> None:
    """Returns when the client has disconnected. The request's body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
