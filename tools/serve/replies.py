"""What goes out, in OpenAI's shapes."""

from typing import Literal

from pydantic import BaseModel

from tools.serve.question import FinishReason


class Usage(BaseModel):
    """Tokens; an answer's include the one that ended it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionChoice(BaseModel):
    """One answer, or a piece of it."""

    index: int
    text: str
    logprobs: None = None
    finish_reason: FinishReason | None


class Completion(BaseModel):
    """Answers, or a piece of one."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None


class Said(BaseModel):
    """The answer of a conversation."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """The one answer."""

    index: Literal[0] = 0
    message: Said
    logprobs: None = None
    finish_reason: FinishReason


class ChatCompletion(BaseModel):
    """An answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChunkChoice(BaseModel):
    """A piece of the answer."""

    index: Literal[0] = 0
    delta: dict[Literal["role", "content"], str]
    logprobs: None = None
    finish_reason: FinishReason | None


class ChatChunk(BaseModel):
    """One of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None


class Classified(BaseModel):
    """One text's label.

    Attributes:
        label: which the answer begins with; null where it is none.
        answer: what the model said.
        top_label: the most likely label, which may differ from the label in the answer.
        probabilities: of each label among all.
    """

    index: int
    label: str | None
    answer: str
    top_label: str | None = None
    probabilities: dict[str, float] | None = None


class Classification(BaseModel):
    """Labels, in the order of the texts."""

    object: Literal["classification"] = "classification"
    model: str
    data: list[Classified]
    usage: Usage


class Model(BaseModel):
    """The one that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tunepress"


class Models(BaseModel):
    """All there are."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    """How the server is."""

    status: Literal["ok", "shutting down", "restarting the model"]


class ErrorDetail(BaseModel):
    """Why a request was not answered."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(BaseModel):
    """OpenAI's shape of an error."""

    error: ErrorDetail
