"""The routes POST /v1/decisions and POST /v1/systemone."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from tools.serve.decisions.openai_format import Decision, DecisionRequest, DecisionUsage, Refusal
from tools.serve.decisions.questions import Decider, Distribution, Question
from tools.serve.decisions.systemone_format import SystemOneRequest, SystemOneResponse, SystemOneUsage
from tools.serve.responses import RequestError
from tools.serve.routing import route_class, while_connected
from tools.serve.service import Service
from tools.serve.tasks import Task

Respond = Callable[[list[Distribution], int], BaseModel]  # from the options' probabilities and the number of tokens


def router(service: Service) -> APIRouter:
    routes = APIRouter(route_class=route_class(service))

    @routes.post("/v1/decisions", response_model=Decision)
    async def decisions(body: DecisionRequest, request: Request) -> Any:
        """Answers questions about an input with the probability of each option, in OpenAI's format."""
        task = service.task(body.model)

        def respond(distributions: list[Distribution], tokens: int) -> Decision:
            answers = [
                Refusal(name=question.name) if distribution.abstains(task.abstain_below) else question.answer(distribution)
                for question, distribution in zip(body.questions, distributions, strict=True)
            ]
            return Decision(model=task.name, answers=answers, usage=DecisionUsage(input_tokens=tokens, total_tokens=tokens))

        questions = [question.question(f"questions.{number}") for number, question in enumerate(body.questions)]
        return await decide(service, task, body.content, "input", questions, respond, request)

    @routes.post("/v1/systemone", response_model=SystemOneResponse, response_model_exclude_none=True)
    async def systemone(body: SystemOneRequest, request: Request) -> Any:
        """Answers questions about a state with the probability of each option, in TypeSafe's format."""
        task = service.task(body.model)
        bound = task.abstain_below

        def respond(distributions: list[Distribution], tokens: int) -> SystemOneResponse:
            answers = {
                key: question.answer(distribution, distribution.abstains(bound) if bound else None)
                for (key, question), distribution in zip(body.questions.items(), distributions, strict=True)
            }
            return SystemOneResponse(model=task.name, answers=answers, usage=SystemOneUsage(input_tokens=tokens))

        questions = [question.question(f"questions.{key}") for key, question in body.questions.items()]
        return await decide(service, task, body.state, "state", questions, respond, request)

    return routes


async def decide(
    service: Service, task: Task, content: Any, param: str, questions: Sequence[Question], respond: Respond, request: Request
) -> BaseModel | Response:
    """Asks the model all questions about an input, as one job."""
    scoring, places = Decider(task, content, param).request(questions)
    allowed = service.settings.max_prompts
    if len(scoring.prompts) > allowed:
        reason = f"questions: this model reads {len(scoring.prompts)} prompts for them, at most {allowed} are allowed"
        raise RequestError(400, reason, "questions")
    batch = service.submit([scoring])
    (job,) = batch.jobs

    async def answers() -> BaseModel:
        logprobs = await job.scores()
        distributions = [Distribution.of([logprobs[prompt][number] for number in numbers]) for prompt, numbers in places]
        return respond(distributions, job.prompt_tokens)

    with batch:
        return await while_connected(request, answers())
