"""POST /v1/classify: the label of a text, found in the model's answer as `stages.evaluate` does."""

from typing import Any

from fastapi import APIRouter, Request

from tools.serve.requests import ClassifyRequest, Row
from tools.serve.responses import Classification, ClassifyResponse, RequestError
from tools.serve.routing import route_class, while_connected
from tools.serve.service import Service
from tools.serve.tasks import Task
from tools.serve.workers.jobs import Job
from tools.serve.workers.messages import GenerationRequest
from tunepress.core.errors import InputError
from tunepress.text.chat_prompt import ChatPrompt
from tunepress.text.labels import INVALID, find_label
from tunepress.text.prompt import Prompt


def router(service: Service) -> APIRouter:
    routes = APIRouter(route_class=route_class(service))

    @routes.post("/v1/classify", response_model=ClassifyResponse, response_model_exclude_unset=True)
    async def classify(body: ClassifyRequest, request: Request) -> Any:
        """Assigns one of the trained labels to each text."""
        task = service.task(body.model)
        labels, scored = known_labels(task, bool(body.likelihoods) or bool(task.abstain_below))
        prompts, param = render(body, task.prompt, task.chat_prompt)
        options: dict[str, Any] = {"scored": scored, "grammar": task.prompt.guidance}
        batch = service.submit([GenerationRequest(prompt, param, task.max_tokens, task.tuning, **options) for prompt in prompts])

        async def respond() -> ClassifyResponse:
            data = [await classification_of(index, job, labels, task.abstain_below) for index, job in enumerate(batch.jobs)]
            return ClassifyResponse(object="classification", model=task.name, data=data, usage=batch.usage)

        with batch:
            return await while_connected(request, respond())

    return routes


def known_labels(task: Task, likelihoods: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the model's labels and, if likelihoods are requested, the completions to score.

    Raises:
        RequestError: the model has no labels, or no completions of them alone.
    """
    labels = task.prompt.labels
    if not labels:
        raise RequestError(400, "this model answers in free text and has no labels; use /v1/completions", code="no_labels")
    if not likelihoods:
        return labels, ()
    completions = task.chat_prompt.label_completions()
    if completions is None:
        reason = "likelihoods: this model writes other columns after the label, so a label alone is not a complete answer"
        raise RequestError(400, reason, "likelihoods")
    return labels, completions


def render(body: ClassifyRequest, prompt: Prompt, chat_prompt: ChatPrompt) -> tuple[list[str], str]:
    """Returns the prompts of a request, and the field that has the texts or rows.

    Raises:
        RequestError: a text or a row does not fill the prompt's columns.
    """
    texts = [body.text] if body.text is not None else body.texts
    if texts is not None:
        param = "texts" if body.text is None else "text"
        try:
            return [chat_prompt.render_text(text.strip()) for text in texts], param
        except InputError as error:
            raise RequestError(400, f"{param}: {error}", param) from error
    rows = [body.row] if body.row is not None else body.rows or []
    param = "rows" if body.row is None else "row"
    if prompt.prompt is None:
        raise RequestError(400, f"{param}: this model answers conversations and has no columns; send text or texts", param)
    for row in rows:
        check_columns(row, prompt, param)
    return [prompt.render_prompt(row) for row in rows], param


def check_columns(row: Row, prompt: Prompt, param: str) -> None:
    """Raises RequestError unless a row has the columns of the prompt, and some text in them."""
    columns = dict.fromkeys(prompt.columns)
    missing, unknown = [name for name in columns if name not in row], [name for name in row if name not in columns]
    if missing or unknown:
        problem = f"has no column {missing[0]!r}" if missing else f"the model's prompt has no column {unknown[0]!r}"
        raise RequestError(400, f"{param}: {problem}; its columns are {', '.join(map(repr, columns))}", param)
    if not any(str(value).strip() for value in row.values()):
        raise RequestError(400, f"{param}: is empty", param)


async def classification_of(index: int, job: Job, labels: tuple[str, ...], abstain_below: float) -> Classification:
    answer = await job.answer()
    label = find_label(answer.text, labels)
    classification = Classification(index=index, label=None if label == INVALID else label, answer=answer.text.strip())
    if answer.probabilities:
        probabilities = dict(zip(labels, answer.probabilities, strict=True))
        classification.probabilities = probabilities
        classification.top_label = max(probabilities, key=probabilities.__getitem__)
        if abstain_below:
            classification.abstained = probabilities[classification.top_label] < abstain_below
            classification.label = None if classification.abstained else classification.label
    return classification
