"""What bodies of requests have in common, no unknown fields and no conversion between types; and that of /v1/classify."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

OF_FIELD = "of_field"  # the type of an error whose context has the field's name


def without_nul(text: str) -> str:
    """Rejects a text that the tokenizer would cut."""
    if "\0" in text:
        raise PydanticCustomError("nul", "contains a NUL character, at which the tokenizer stops")
    return text


def not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty", "is empty")
    return text


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


def check(condition: object, name: str, reason: str) -> None:
    """Raises pydantic's error about a field unless a condition holds, in a validator of the whole object."""
    if not condition:
        raise PydanticCustomError(OF_FIELD, "{reason}", {"name": name, "reason": reason})


def one_of(*names: str) -> dict[str, Any]:
    """The JSON schema of fields exactly one of which is present and not null."""
    return {"oneOf": [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]}


Text = Annotated[str, Field(min_length=1, json_schema_extra={"pattern": r"^[^\u0000]*$"}), AfterValidator(without_nul)]
Words = Annotated[Text, AfterValidator(not_blank), Field(json_schema_extra={"pattern": r"^[^\u0000]*\S[^\u0000]*$"})]
Value = Annotated[str, AfterValidator(without_nul)] | int | Annotated[float, Field(allow_inf_nan=False)] | bool
Row = dict[str, Value]


class Strict(BaseModel):
    """Rejects unknown fields, and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(Strict):
    type: Literal["text"]
    text: Text


TextParts = Annotated[list[TextPart], Field(min_length=1)]


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
