"""POST /v1/systemone: requests and answers in TypeSafe's format."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from tools.serve.decisions.questions import (
    MOST_OPTIONS,
    MOST_QUESTIONS,
    YES_NO,
    Distribution,
    Question,
    as_text,
    check_distinct,
)
from tools.serve.requests import Strict, Words

Description = Annotated[str | None, BeforeValidator(as_text, json_schema_input_type=str | dict[str, Any] | list[Any] | None)]
Instructions = Annotated[Words, BeforeValidator(as_text, json_schema_input_type=Words | dict[str, Any] | list[Any])]


class YesNo(Strict):
    yes: Description = Field(None, alias="true")
    no: Description = Field(None, alias="false")


class NoulQuestion(Strict):
    """How likely the answer is yes."""

    type: Literal["noul"]
    instructions: Instructions
    criteria: YesNo | None = None

    def question(self, param: str) -> Question:
        options = {"yes": self.criteria.yes, "no": self.criteria.no} if self.criteria else YES_NO
        return Question(param, self.instructions, options, yes_no=True)

    def answer(self, distribution: Distribution, abstained: bool | None) -> "Answer":
        return NoulAnswer(noul=distribution.probabilities[0], abstained=abstained)


class ChoiceQuestion(Strict):
    """Which of several options fits."""

    type: Literal["choice"]
    instructions: Instructions
    criteria: Annotated[dict[Words, Description], Field(min_length=2, max_length=MOST_OPTIONS)]

    def question(self, param: str) -> Question:
        return Question(param, self.instructions, self.criteria)

    def answer(self, distribution: Distribution, abstained: bool | None) -> "Answer":
        values = list(self.criteria)
        return ChoiceAnswer(
            choice=values[distribution.top],
            probabilities=dict(zip(values, distribution.probabilities, strict=True)),
            confidence=distribution.concentration,
            abstained=abstained,
        )


class ScoreQuestion(Strict):
    """Where the input is on a scale, whose levels begin with the lowest."""

    type: Literal["score"]
    instructions: Instructions
    criteria: Annotated[list[Words], Field(min_length=2, max_length=MOST_OPTIONS)]

    @model_validator(mode="after")
    def _distinct(self) -> "ScoreQuestion":
        check_distinct(self.criteria)
        return self

    def question(self, param: str) -> Question:
        return Question(param, self.instructions, dict.fromkeys(self.criteria))

    def answer(self, distribution: Distribution, abstained: bool | None) -> "Answer":
        return ScoreAnswer(
            score=distribution.level,
            legend={str(level): text for level, text in enumerate(self.criteria)},
            probabilities={str(level): probability for level, probability in enumerate(distribution.probabilities)},
            confidence=distribution.level_concentration,
            abstained=abstained,
        )


class SystemOneRequest(Strict):
    """Questions about a state, by names of the client's."""

    model: str | None = Field(None, description="as in GET /v1/models; optional")
    state: Words | dict[str, Any] | list[Any]
    questions: Annotated[
        dict[str, Annotated[NoulQuestion | ChoiceQuestion | ScoreQuestion, Field(discriminator="type")]],
        Field(min_length=1, max_length=MOST_QUESTIONS),
    ]


class NoulAnswer(BaseModel):
    type: Literal["noul"] = "noul"
    noul: float
    abstained: bool | None = None


class ChoiceAnswer(BaseModel):
    type: Literal["choice"] = "choice"
    choice: str
    probabilities: dict[str, float]
    confidence: float
    abstained: bool | None = None


class ScoreAnswer(BaseModel):
    type: Literal["score"] = "score"
    score: float
    legend: dict[str, str]
    probabilities: dict[str, float]
    confidence: float
    abstained: bool | None = None


Answer = NoulAnswer | ChoiceAnswer | ScoreAnswer


class SystemOneUsage(BaseModel):
    input_tokens: int
    output_tokens: int = 0


class SystemOneResponse(BaseModel):
    """Answers by the names of their questions; `abstained` is there if the server has a bound below which it abstains."""

    model: str
    answers: dict[str, Answer]
    usage: SystemOneUsage
