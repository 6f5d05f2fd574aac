"""Refusals: a request that is not answered, and why, in the shape of OpenAI's errors."""

from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class RequestError(HTTPException):
    """A request that is not answered. FastAPI makes an error of its own of any but an HTTPException while it reads a body.

    Attributes:
        status_code: of HTTP.
        reason: what is wrong, and the cure where there is one.
        param: the field of the request that is wrong.
        code: OpenAI's, by which a program tells it from others.
        headers: of the response.
    """

    def __init__(
        self, status: int, reason: str, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, reason, headers)
        self.reason, self.param, self.code = reason, param, code

    def body(self) -> dict[str, Any]:
        """OpenAI's shape."""
        kind = KINDS.get(self.status_code, "invalid_request_error" if self.status_code < 500 else "server_error")
        return {"error": {"message": self.reason, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """As HTTP."""
        return JSONResponse(self.body(), self.status_code, self.headers)
