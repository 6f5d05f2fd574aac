"""Bodies of the requests for answers, with OpenAI's names."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tools.serve.requests import Strict, Text, TextParts, check, join_parts

LARGEST_SEED = 2**31 - 1  # onnxruntime-genai's seed is a C int
MOST_ANSWERS, MOST_LOGPROBS, MOST_TOP_LOGPROBS = 128, 5, 20  # OpenAI's


def as_list(value: Any) -> Any:
    return value if isinstance(value, list) or value is None else [value]


def only_texts(value: Any) -> Any:
    texts = as_list(value)
    if isinstance(texts, list) and any(isinstance(text, int | list) for text in texts):
        raise PydanticCustomError("tokens", "token ids are not supported; send text")
    return texts


def not_false(value: Any) -> Any:
    if value is False:
        raise PydanticCustomError("parallel", "the model may call several functions at once, which cannot be turned off")
    return value


Texts = Annotated[list[Text], Field(min_length=1)]
Stops = Annotated[list[Text], Field(max_length=4)]


class StreamOptions(Strict):
    include_usage: bool = Field(False, description="whether a last chunk has the numbers of tokens")


class Sampling(Strict):
    """How an answer is generated. OpenAI's default temperature is 1; here it is 0, for the same answers as `make predict`."""

    model: str | None = Field(None, description="as in GET /v1/models; optional")
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = Field(
        None, description="0, the default, takes the most likely token each time"
    )
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] | None = Field(
        None, description="of the first answer; further ones take the next numbers"
    )
    stop: Annotated[Stops, BeforeValidator(as_list, json_schema_input_type=Text | Stops)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = Field(None, description="answers to each prompt, by default 1")

    @model_validator(mode="after")
    def _check_stream(self) -> "Sampling":
        check(self.stream or not self.stream_options, "stream_options", "needs stream=true")
        return self

    @model_validator(mode="after")
    def _check_answers(self) -> "Sampling":
        check(self.temperature or (self.n or 1) == 1, "n", "without a temperature above 0 all answers are the same")
        return self


class CompletionRequest(Sampling):
    """A text to continue; nothing is added to it."""

    prompt: Annotated[Texts, BeforeValidator(only_texts, json_schema_input_type=Text | Texts)]
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="maximum length of the answer; by default that of the longest answer in training"
    )
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = Field(
        None, description="return the log-probability of each token, and of so many of the most likely ones in its place"
    )


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


class FunctionName(Strict):
    name: str


class NamedTool(Strict):
    """The function that the answer must call."""

    type: Literal["function"]
    function: FunctionName


Choice = Literal["none", "auto", "required"] | NamedTool


def as_choice(value: Any) -> Any:
    """Reads an object as a NamedTool, so that errors do not name the types of a union."""
    if value in (None, "none", "auto", "required"):
        return value
    try:
        return NamedTool.model_validate(value)
    except ValidationError:
        form = 'must be none, auto, required or {"type": "function", "function": {"name": "..."}}'
        raise PydanticCustomError("choice", "{form}", {"form": form}) from None


class JsonSchema(Strict):
    """A JSON schema, within what llguidance supports."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    content: dict[str, Any] = Field({}, alias="schema")  # BaseModel has an attribute schema
    description: str | None = None
    strict: bool | None = Field(None, description="an answer always matches the schema, whatever this is")


class ResponseFormat(Strict):
    """What an answer must be: JSON, or one of the model's labels, which is not OpenAI's."""

    type: Literal["text", "json_object", "json_schema", "labels"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> "ResponseFormat":
        both = (self.type == "json_schema") == (self.json_schema is not None)
        check(both, "json_schema", "belongs to the type json_schema, which needs it")
        return self


class ChatRequest(Sampling):
    """A conversation, or one message for a model that was trained on single texts."""

    messages: Annotated[list[Message], Field(min_length=1)]
    tools: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = Field(
        None, description="functions that the assistant may call, for a model that was trained with some"
    )
    tool_choice: Annotated[Choice | None, BeforeValidator(as_choice, json_schema_input_type=Choice | None)] = Field(
        None, description="whether the answer calls a function; auto, the default, leaves that to the model"
    )
    parallel_tool_calls: Annotated[Literal[True], BeforeValidator(not_false)] | None = None
    response_format: ResponseFormat | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="maximum length of the answer; by default that of the longest answer in training"
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="older name of max_completion_tokens")
    logprobs: bool | None = Field(None, description="return the log-probability of each token")
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = Field(
        None, description="also those of so many of the most likely tokens in its place"
    )

    @property
    def offered(self) -> list[dict[str, Any]] | None:
        """The functions that the model is told of."""
        return None if self.tool_choice == "none" else self.tools

    @property
    def constrained(self) -> bool:
        """Whether `response_format` is more than text."""
        return self.response_format is not None and self.response_format.type != "text"

    @model_validator(mode="after")
    def _check_limit(self) -> "ChatRequest":
        both = self.max_tokens is not None and self.max_completion_tokens is not None
        check(not both, "max_tokens", "is the older name of max_completion_tokens; send only one of them")
        return self

    @model_validator(mode="after")
    def _check_logprobs(self) -> "ChatRequest":
        check(self.logprobs or self.top_logprobs is None, "top_logprobs", "needs logprobs=true")
        return self

    @model_validator(mode="after")
    def _check_tools(self) -> "ChatRequest":
        check(self.tools or self.tool_choice in (None, "none", "auto"), "tool_choice", "needs tools")
        reason = "an answer in JSON or of labels calls no function; send no tools, or tool_choice none"
        check(not (self.constrained and self.offered), "response_format", reason)
        return self
