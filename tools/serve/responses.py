"""Bodies of responses, in OpenAI's format where it has one, and the errors that become responses."""

from typing import Any, Literal

from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

ERROR_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class RequestError(HTTPException):
    """A request that is not answered. FastAPI replaces any exception but an HTTPException while it reads a body.

    Attributes:
        status_code: of HTTP.
        reason: what is wrong, and the cure if there is one.
        param: the field of the request that is wrong.
        code: OpenAI's, for programs.
        headers: of the response.
    """

    def __init__(
        self, status: int, reason: str, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, reason, headers)
        self.reason, self.param, self.code = reason, param, code

    def body(self) -> dict[str, Any]:
        error_type = ERROR_TYPES.get(self.status_code, "invalid_request_error" if self.status_code < 500 else "server_error")
        return {"error": {"message": self.reason, "type": error_type, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status_code, self.headers)


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    """What `RequestError.body` returns, for the OpenAPI document."""

    error: ErrorDetail


class Usage(BaseModel):
    """Numbers of tokens; those of an answer include the token that ended it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Classification(BaseModel):
    """The label of one text.

    Attributes:
        label: with which the answer begins; null if it begins with none, or if the model abstained.
        answer: the text of the answer.
        top_label: the most probable label, which may differ from `label`.
        probabilities: of each label, relative to each other, after the model's temperature.
        abstained: whether the probability of the top label is below the server's bound; null where it has none.
    """

    index: int
    label: str | None
    answer: str
    top_label: str | None = None
    probabilities: dict[str, float] | None = None
    abstained: bool | None = None


class ClassifyResponse(BaseModel):
    """Labels, in the order of the texts."""

    object: Literal["classification"] = "classification"
    model: str
    data: list[Classification]
    usage: Usage


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tunepress"
    parent: str | None = None  # of an adapter, the model that it is used on


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    status: Literal["ok", "shutting down", "restarting the model"]


class Live(BaseModel):
    status: Literal["ok"] = "ok"
