"""Bodies of requests: OpenAI's names, no unknown fields, no conversion between types."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

LARGEST_SEED = 2**31 - 1  # onnxruntime-genai's seed is a C int

ONE_ANSWER = "only one answer per prompt is supported (n=1); send the prompt again with another seed"
NO_LOGPROBS = "log-probabilities are not supported; /v1/classify returns the probability of each label"


def without_nul(text: str) -> str:
    """Rejects a text that the tokenizer would cut."""
    if "\0" in text:
        raise PydanticCustomError("nul", "contains a NUL character, at which the tokenizer stops")
    return text


def not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty", "is empty")
    return text


def as_list(value: Any) -> Any:
    return value if isinstance(value, list) or value is None else [value]


def only_texts(value: Any) -> Any:
    texts = as_list(value)
    if isinstance(texts, list) and any(isinstance(text, int | list) for text in texts):
        raise PydanticCustomError("tokens", "token ids are not supported; send text")
    return texts


def join_parts(*types: str) -> Callable[[Any], Any]:
    """Joins the parts of a text, which have one of several types."""

    def join(content: Any) -> Any:
        if not isinstance(content, list):
            return content
        parts = [part.get("text") if isinstance(part, dict) and part.get("type") in types else None for part in content]
        if not parts or any(not isinstance(part, str) for part in parts):
            reason = f'only text is supported, as a string or as parts {{"type": "{types[0]}", "text": "..."}}'
            raise PydanticCustomError("parts", "{reason}", {"reason": reason})
        return "".join(map(str, parts))

    return join


def only(allowed: tuple[Any, ...], reason: str) -> BeforeValidator:
    """Accepts only values that mean an unsupported feature is not used."""

    def check(value: Any) -> Any:
        if not any(value is other or (type(value) is type(other) and value == other) for other in allowed):
            raise PydanticCustomError("unsupported", reason)
        return value

    return BeforeValidator(check)


def one_of(*names: str) -> dict[str, Any]:
    """The JSON schema of fields exactly one of which is present and not null."""
    return {"oneOf": [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]}


Text = Annotated[str, Field(min_length=1, json_schema_extra={"pattern": r"^[^\u0000]*$"}), AfterValidator(without_nul)]
Words = Annotated[Text, AfterValidator(not_blank), Field(json_schema_extra={"pattern": r"^[^\u0000]*\S[^\u0000]*$"})]
Texts = Annotated[list[Text], Field(min_length=1)]
Stops = Annotated[list[Text], Field(max_length=4)]
Value = Annotated[str, AfterValidator(without_nul)] | int | Annotated[float, Field(allow_inf_nan=False)] | bool
Row = dict[str, Value]


class Strict(BaseModel):
    """Rejects unknown fields, and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(Strict):
    type: Literal["text"]
    text: Text


TextParts = Annotated[list[TextPart], Field(min_length=1)]


class StreamOptions(Strict):
    include_usage: bool = Field(False, description="whether a last chunk has the numbers of tokens")


class Sampling(Strict):
    """How an answer is generated. OpenAI's default temperature is 1; here it is 0, for the same answers as `make predict`."""

    model: str | None = Field(None, description="as in GET /v1/models; optional")
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = Field(
        None, description="0, the default, takes the most likely token each time"
    )
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] | None = None
    stop: Annotated[Stops, BeforeValidator(as_list, json_schema_input_type=Text | Stops)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[Literal[1] | None, only((None, 1), ONE_ANSWER)] = None

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> "Sampling":
        if self.stream_options and not self.stream:
            raise PydanticCustomError("stream_options", "stream_options: needs stream=true")
        return self


class CompletionRequest(Sampling):
    """A text to continue; nothing is added to it."""

    prompt: Annotated[Texts, BeforeValidator(only_texts, json_schema_input_type=Text | Texts)]
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="maximum length of the answer; by default that of the longest answer in training"
    )
    logprobs: Annotated[None, only((None,), NO_LOGPROBS)] = None


class Function(Strict):
    name: Annotated[str, Field(min_length=1)]
    arguments: str | dict[str, Any] = "{}"


class ToolCall(Strict):
    id: str | None = None
    type: Literal["function"] = "function"
    function: Function


class Message(Strict):
    role: Literal["system", "user", "assistant", "tool"]
    content: Annotated[Text | None, BeforeValidator(join_parts("text"), json_schema_input_type=Text | TextParts | None)] = None
    tool_calls: Annotated[list[ToolCall], Field(min_length=1)] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class ChatRequest(Sampling):
    """A conversation, or one message for a model that was trained on single texts."""

    messages: Annotated[list[Message], Field(min_length=1)]
    tools: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = Field(
        None, description="functions that the assistant may call, for a model that was trained with some"
    )
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="maximum length of the answer; by default that of the longest answer in training"
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="older name of max_completion_tokens")
    logprobs: Annotated[Literal[False] | None, only((None, False), NO_LOGPROBS)] = None

    @model_validator(mode="after")
    def _only_one_limit(self) -> "ChatRequest":
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise PydanticCustomError(
                "max_tokens", "max_tokens: is the older name of max_completion_tokens; send only one of them"
            )
        return self


class ClassifyRequest(Strict):
    """What to classify: exactly one of the four fields."""

    model_config = ConfigDict(json_schema_extra=one_of("text", "texts", "row", "rows"))

    model: str | None = Field(None, description="as in GET /v1/models; optional")
    text: Words | None = Field(None, description="if the model's prompt has one column")
    texts: Annotated[list[Words], Field(min_length=1)] | None = Field(None, description="several of them")
    row: Row | None = Field(None, description="values of the columns in the model's prompt")
    rows: Annotated[list[Row], Field(min_length=1)] | None = Field(None, description="several of them")
    likelihoods: bool | None = Field(None, description="whether to return the probability of each label")

    @model_validator(mode="after")
    def _one_of_four(self) -> "ClassifyRequest":
        present = [name for name in ("text", "texts", "row", "rows") if getattr(self, name) is not None]
        if len(present) != 1:
            raise PydanticCustomError("what", "send exactly one of text, texts, row and rows")
        return self
