"""The client at the other end, who may hang up."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response

Answer = TypeVar("Answer")
GONE = 499  # nginx's status for it; nobody sees it but the metrics


async def while_connected(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer | Response:
    """What `work` returns, or a response to nobody: where the client hangs up, the work is cancelled."""
    working, listening = asyncio.ensure_future(work), asyncio.ensure_future(hung_up(request))
    try:
        await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else Response(status_code=GONE)
    finally:
        working.cancel()
        listening.cancel()


async def hung_up(request: Request) -> None:
    """Returns when the client is gone. The request's body has been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
