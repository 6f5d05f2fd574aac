"""POST /v1/decisions: requests and answers in OpenAI's format."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, StrictBool, StrictStr, model_validator

from tools.serve.decisions.questions import MOST_OPTIONS, MOST_QUESTIONS, YES_NO, Distribution, Question, check_distinct
from tools.serve.requests import Strict, Text, Words, join_parts

Instructions = Annotated[Words, BeforeValidator(join_parts("input_text"), json_schema_input_type=Words | list[dict[str, Any]])]


class InputMessage(Strict):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[
        Text, BeforeValidator(join_parts("input_text", "output_text"), json_schema_input_type=Text | list[dict[str, Any]])
    ]

    def as_message(self) -> dict[str, Any]:
        return {"role": "system" if self.role == "developer" else self.role, "content": self.content}


class PredicateQuestion(Strict):
    """How likely a statement is true."""

    type: Literal["predicate"]
    name: str | None = None
    instructions: Instructions

    def question(self, param: str) -> Question:
        return Question(param, self.instructions, YES_NO, yes_no=True)

    def answer(self, distribution: Distribution) -> "Answer":
        return PredicateAnswer(name=self.name, probability=distribution.probabilities[0])


class Choice(Strict):
    value: Words | StrictBool
    description: str | None = None

    @property
    def text(self) -> str:
        return self.value if isinstance(self.value, str) else str(self.value).lower()


class ChoiceQuestion(Strict):
    """Which of several options fits."""

    type: Literal["choice"]
    name: str | None = None
    instructions: Instructions
    choices: Annotated[list[Choice], Field(min_length=2, max_length=MOST_OPTIONS)]

    @model_validator(mode="after")
    def _distinct(self) -> "ChoiceQuestion":
        check_distinct([choice.text for choice in self.choices])
        return self

    def question(self, param: str) -> Question:
        return Question(param, self.instructions, {choice.text: choice.description for choice in self.choices})

    def answer(self, distribution: Distribution) -> "Answer":
        values = [choice.value for choice in self.choices]
        return ChoiceAnswer(
            name=self.name,
            choice=values[distribution.top],
            confidence=distribution.concentration,
            probabilities=[
                ChoiceProbability(value=value, probability=probability)
                for value, probability in zip(values, distribution.probabilities, strict=True)
            ],
        )


class Level(Strict):
    label: Words
    description: str | None = None


class ScoreQuestion(Strict):
    """Where the input is on a scale."""

    type: Literal["score"]
    name: str | None = None
    instructions: Instructions
    levels: Annotated[list[Level], Field(min_length=2, max_length=MOST_OPTIONS)]

    @model_validator(mode="after")
    def _distinct(self) -> "ScoreQuestion":
        check_distinct([level.label for level in self.levels])
        return self

    def question(self, param: str) -> Question:
        return Question(param, self.instructions, {level.label: level.description for level in self.levels})

    def answer(self, distribution: Distribution) -> "Answer":
        return ScoreAnswer(
            name=self.name,
            score=distribution.level,
            confidence=distribution.level_concentration,
            probabilities=[
                LevelProbability(label=level.label, value=value, probability=distribution.probabilities[value])
                for value, level in enumerate(self.levels)
            ],
        )


class DecisionRequest(Strict):
    """Questions about an input."""

    model: str | None = Field(None, description="as in GET /v1/models; optional")
    input: Words | Annotated[list[InputMessage], Field(min_length=1)]
    questions: Annotated[
        list[Annotated[PredicateQuestion | ChoiceQuestion | ScoreQuestion, Field(discriminator="type")]],
        Field(min_length=1, max_length=MOST_QUESTIONS),
    ]

    @property
    def content(self) -> str | list[dict[str, Any]]:
        return self.input if isinstance(self.input, str) else [message.as_message() for message in self.input]


class PredicateAnswer(BaseModel):
    type: Literal["predicate"] = "predicate"
    name: str | None
    probability: float


class ChoiceProbability(BaseModel):
    value: StrictStr | StrictBool
    probability: float


class ChoiceAnswer(BaseModel):
    type: Literal["choice"] = "choice"
    name: str | None
    choice: StrictStr | StrictBool
    confidence: float
    probabilities: list[ChoiceProbability]


class LevelProbability(BaseModel):
    label: str
    value: int
    probability: float


class ScoreAnswer(BaseModel):
    type: Literal["score"] = "score"
    name: str | None
    score: float
    confidence: float
    probabilities: list[LevelProbability]


class Refusal(BaseModel):
    """The model abstained: the probability of the most likely option is below the server's bound."""

    type: Literal["refusal"] = "refusal"
    name: str | None


Answer = PredicateAnswer | ChoiceAnswer | ScoreAnswer | Refusal


class InputDetails(BaseModel):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(BaseModel):
    reasoning_tokens: int = 0


class DecisionUsage(BaseModel):
    """Numbers of tokens; nothing is generated."""

    input_tokens: int
    input_tokens_details: InputDetails = InputDetails()
    output_tokens: int = 0
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int


class Decision(BaseModel):
    """Answers in the order of the questions."""

    model: str
    answers: list[Answer]
    usage: DecisionUsage
