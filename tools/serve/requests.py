"""What may come in: OpenAI's names, no field that nothing reads, no value that is taken for another."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

LARGEST_SEED = 2**31 - 1  # onnxruntime-genai's is an int of C

ONE_ANSWER = "only one answer for each prompt (n=1); send the prompt again with another seed"
NO_LOGPROBS = "log-probabilities are not served; /v1/classify gives the probability of each label"


def without_nul(text: str) -> str:
    """Raises unless a text reaches the tokenizer whole."""
    if "\0" in text:
        raise PydanticCustomError("nul", "holds a NUL character, at which the tokenizer stops reading")
    return text


def not_blank(text: str) -> str:
    """Raises unless there is something in a text."""
    if not text.strip():
        raise PydanticCustomError("empty", "is empty")
    return text


def listed(value: Any) -> Any:
    """A list of one where no list came."""
    return value if isinstance(value, list) or value is None else [value]


def no_tokens(value: Any) -> Any:
    """Raises where a prompt comes in tokens."""
    texts = listed(value)
    if isinstance(texts, list) and any(isinstance(text, int | list) for text in texts):
        raise PydanticCustomError("tokens", "token ids are not taken; send text")
    return texts


def joined(content: Any) -> Any:
    """The text of a message that comes in parts."""
    if not isinstance(content, list):
        return content
    parts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    if not parts or any(not isinstance(part, str) for part in parts):
        raise PydanticCustomError("parts", 'only text is taken, as a string or as parts {"type": "text", "text": "..."}')
    return "".join(map(str, parts))


def refused(allowed: tuple[Any, ...], reason: str) -> BeforeValidator:
    """Takes nothing but what says that something is not wanted."""

    def check(value: Any) -> Any:
        if not any(value is one or (type(value) is type(one) and value == one) for one in allowed):
            raise PydanticCustomError("unsupported", reason)
        return value

    return BeforeValidator(check)


def one_of(*names: str) -> dict[str, Any]:
    """What a JSON schema says of fields of which one is there, and not null."""
    return {"oneOf": [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]}


Text = Annotated[str, Field(min_length=1, json_schema_extra={"pattern": r"^[^\u0000]*$"}), AfterValidator(without_nul)]
Words = Annotated[Text, AfterValidator(not_blank), Field(json_schema_extra={"pattern": r"^[^\u0000]*\S[^\u0000]*$"})]
Texts = Annotated[list[Text], Field(min_length=1)]
Stops = Annotated[list[Text], Field(max_length=4)]
Value = Annotated[str, AfterValidator(without_nul)] | int | Annotated[float, Field(allow_inf_nan=False)] | bool
Row = dict[str, Value]


class Strict(BaseModel):
    """No field more than there are, and no type in another's place."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(Strict):
    """A part of a message."""

    type: Literal["text"]
    text: Text


TextParts = Annotated[list[TextPart], Field(min_length=1)]


class StreamOptions(Strict):
    """Of a stream."""

    include_usage: bool = Field(False, description="whether the last chunk has the numbers of tokens")


class Sampling(Strict):
    """How an answer is written. OpenAI's own default is temperature 1; here 0, so that an answer is that of `make predict`."""

    model: str | None = Field(None, description="as GET /v1/models names it; may be left out")
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = Field(
        None, description="0, which is the default, takes the likeliest token each time"
    )
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] | None = None
    stop: Annotated[Stops, BeforeValidator(listed, json_schema_input_type=Text | Stops)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[Literal[1] | None, refused((None, 1), ONE_ANSWER)] = None

    @model_validator(mode="after")
    def _stream_options_want_a_stream(self) -> "Sampling":
        if self.stream_options and not self.stream:
            raise PydanticCustomError("stream_options", "stream_options: only with stream=true")
        return self


class CompletionRequest(Sampling):
    """A text to go on from, as it is: nothing is put around it."""

    prompt: Annotated[Texts, BeforeValidator(no_tokens, json_schema_input_type=Text | Texts)]
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="of the answer; without it as many as the longest answer in training had"
    )
    logprobs: Annotated[None, refused((None,), NO_LOGPROBS)] = None


class Message(Strict):
    """What somebody said."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[Text, BeforeValidator(joined, json_schema_input_type=Text | TextParts)]


class ChatRequest(Sampling):
    """A conversation, or one text for a model that was trained on texts."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="of the answer; without it as many as the longest answer in training had"
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="the older name of max_completion_tokens")
    logprobs: Annotated[Literal[False] | None, refused((None, False), NO_LOGPROBS)] = None

    @model_validator(mode="after")
    def _one_name_of_the_limit(self) -> "ChatRequest":
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise PydanticCustomError("max_tokens", "max_tokens: is the older name of max_completion_tokens; send one of the two")
        return self


class ClassifyRequest(Strict):
    """What to put a label to: one of the four fields."""

    model_config = ConfigDict(json_schema_extra=one_of("text", "texts", "row", "rows"))

    model: str | None = Field(None, description="as GET /v1/models names it; may be left out")
    text: Words | None = Field(None, description="where the model's prompt has one column")
    texts: Annotated[list[Words], Field(min_length=1)] | None = Field(None, description="several of them")
    row: Row | None = Field(None, description="the columns of the model's prompt")
    rows: Annotated[list[Row], Field(min_length=1)] | None = Field(None, description="several of them")
    likelihoods: bool | None = Field(None, description="whether to give the probability of each label too")

    @model_validator(mode="after")
    def _one_of_four(self) -> "ClassifyRequest":
        given = [name for name in ("text", "texts", "row", "rows") if getattr(self, name) is not None]
        if len(given) != 1:
            raise PydanticCustomError("what", "send one of text, texts, row and rows")
        return self
