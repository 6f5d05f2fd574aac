"""The door of the service: who may come in, and with how much. What waits here costs neither the model nor much memory."""

import asyncio
import hmac
from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from tools.serve.errors import RequestError
from tools.serve.service import Service

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JsonRequest(Request):
    """A request whose body is JSON in UTF-8, and no longer or slower than is allowed."""

    service: Service

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            RequestError: it is of another kind, too long or too slow.
        """
        if not hasattr(self, "_body"):
            kind = Message()
            kind["content-type"] = self.headers.get("content-type", "none")
            if kind.get_content_type() != "application/json":
                raise RequestError(415, "the body must be JSON, with the header Content-Type: application/json")
            try:
                async with asyncio.timeout(self.service.settings.client_timeout):
                    self._body = await self._read()
            except TimeoutError:
                raise RequestError(408, "the body took too long to come", headers={"Connection": "close"}) from None
        return self._body

    async def json(self) -> Any:
        """What the body says.

        Raises:
            RequestError: it is no JSON.
        """
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise RequestError(400, f"the body is no JSON in UTF-8 ({error})", code="invalid_json") from error

    async def _read(self) -> bytes:
        most = self.service.settings.max_body
        said = self.headers.get("content-length", "")
        body = bytearray()
        too_long = said.isdigit() and len(said) < 20 and int(said) > most
        if not too_long:
            async for chunk in self.stream():
                body += chunk
                if len(body) > most:
                    too_long = True
                    break
        if too_long:
            raise RequestError(413, f"the body has more than {most} bytes", code="body_too_long", headers={"Connection": "close"})
        if not body:
            raise RequestError(400, "the body is empty; it must be a JSON object")
        return bytes(body)


def door(service: Service) -> type[APIRoute]:
    """The routes behind the door of a service."""

    class Route(APIRoute):
        """A route that looks at a request before it reads its body."""

        def get_route_handler(self) -> Handler:
            """The handler behind the door."""
            inner = super().get_route_handler()

            async def handler(request: Request) -> Response:
                service.check_open()
                check_key(request, service.settings.api_key)
                arrived = JsonRequest(request.scope, request.receive)
                arrived.service = service
                return await inner(arrived)

            return handler

    return Route


def check_key(request: Request, key: str | None) -> None:
    """Raises RequestError unless the request shows the key, where one is wanted."""
    if key is None:
        return
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    same = hmac.compare_digest(shown.strip().encode(), key.encode())  # takes as long for a near miss as for a far one
    if not (same and scheme.lower() == "bearer"):
        raise RequestError(
            401,
            "this server wants its key, as Authorization: Bearer ...",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
