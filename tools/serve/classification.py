"""POST /v1/classify: the label of a text, as `stages.evaluate` takes it from the model's answer."""

from typing import Any

from fastapi import APIRouter, Request

from tools.serve.client import while_connected
from tools.serve.door import door
from tools.serve.errors import RequestError
from tools.serve.generation import answered, usage
from tools.serve.question import Question
from tools.serve.replies import Classification, Classified
from tools.serve.requests import ClassifyRequest, Row
from tools.serve.service import Service
from tools.serve.worker import Job
from tunepress.core.errors import InputError
from tunepress.text.labels import INVALID, find_label
from tunepress.text.prompt import Prompt


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter(route_class=door(service))

    @routes.post("/v1/classify", response_model=Classification, response_model_exclude_unset=True)
    async def classify(body: ClassifyRequest, request: Request) -> Any:
        """Puts one of the trained labels to each text."""
        service.check_model(body.model)
        labels, scored = known_labels(service, bool(body.likelihoods))
        prompts, param = rendered(body, service.prompt)
        asked = service.ask([Question(prompt, param, service.max_tokens, scored=scored) for prompt in prompts])

        async def classified() -> Classification:
            data = [await one_label(index, job, labels) for index, job in enumerate(asked.jobs)]
            return Classification(object="classification", model=service.settings.name, data=data, usage=usage(asked))

        with asked:
            return await while_connected(request, classified())

    return routes


def known_labels(service: Service, likelihoods: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The model's labels, and as it writes them where their likelihoods are wanted.

    Raises:
        RequestError: it has none.
    """
    labels = service.prompt.labels
    if not labels:
        raise RequestError(400, "this model answers in free text and knows no labels; ask /v1/completions", code="no_labels")
    if not likelihoods:
        return labels, ()
    in_full = service.labels_in_full()
    if in_full is None:
        reason = "likelihoods: behind the label this model writes other columns, so the labels alone are not its answers"
        raise RequestError(400, reason, "likelihoods")
    return labels, in_full


def rendered(body: ClassifyRequest, prompt: Prompt) -> tuple[list[str], str]:
    """The prompts that a request asks, and the field that they are in.

    Raises:
        RequestError: a text or a row does not fill the prompt's columns.
    """
    texts = [body.text] if body.text is not None else body.texts
    if texts is not None:
        param = "texts" if body.text is None else "text"
        try:
            return [prompt.render_prompt(prompt.parse_row(text.strip())) for text in texts], param
        except InputError as error:
            raise RequestError(400, f"{param}: {error}", param) from error
    rows = [body.row] if body.row is not None else body.rows or []
    param = "rows" if body.row is None else "row"
    for row in rows:
        check_columns(row, prompt, param)
    return [prompt.render_prompt(row) for row in rows], param


def check_columns(row: Row, prompt: Prompt, param: str) -> None:
    """Raises RequestError unless a row has the prompt's columns, and something in them."""
    wanted = dict.fromkeys(prompt.columns)
    missing, unknown = [name for name in wanted if name not in row], [name for name in row if name not in wanted]
    if missing or unknown:
        what = f"has no column {missing[0]!r}" if missing else f"the model's prompt has no column {unknown[0]!r}"
        raise RequestError(400, f"{param}: {what}; its columns are {', '.join(map(repr, wanted))}", param)
    if not any(str(value).strip() for value in row.values()):
        raise RequestError(400, f"{param}: is empty", param)


async def one_label(index: int, job: Job, labels: tuple[str, ...]) -> Classified:
    """What the model says of one text."""
    answer, end = await answered(job)
    label = find_label(answer, labels)
    said = Classified(index=index, label=None if label == INVALID else label, answer=answer.strip())
    if end.probabilities:
        said.probabilities = dict(zip(labels, end.probabilities, strict=True))
        said.top_label = max(said.probabilities, key=said.probabilities.__getitem__)
    return said
