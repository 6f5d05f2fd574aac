"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter: adapters come and go while the server runs, with vLLM's names."""

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request

from tools.serve.requests import Strict, Words
from tools.serve.responses import Model, RequestError
from tools.serve.routing import route_class, while_connected
from tools.serve.service import Service
from tools.serve.tasks import Task, read_adapter
from tools.serve.workers.messages import GenerationRequest
from tunepress.core.errors import InputError, one_line


class LoadRequest(Strict):
    """An adapter to load."""

    lora_name: Words
    lora_path: Words


class UnloadRequest(Strict):
    """An adapter that is no longer needed."""

    lora_name: Words


def router(service: Service, root: Path) -> APIRouter:
    """The two routes; adapters are loaded from folders in `root` only."""
    routes = APIRouter(route_class=route_class(service))

    @routes.post("/v1/load_lora_adapter", response_model=Model)
    async def load(body: LoadRequest, request: Request) -> Any:
        """Adds a task, whose folder is in the folder of --adapters-from."""
        check_free(service, body.lora_name)
        settings = service.settings
        try:
            folder = inside(root, body.lora_path)
            task = await asyncio.to_thread(read_adapter, body.lora_name, folder, settings.model, settings.abstain_below)
        except (InputError, OSError, RuntimeError) as error:  # the last two where the path or a file in it is broken
            raise RequestError(400, f"lora_path: {one_line(error)}", "lora_path") from error
        if closed := await while_connected(request, answer_with(service, task)):
            return closed
        check_free(service, task.name)  # another request may have been faster
        service.tasks[task.name] = task
        return service.model(task)

    @routes.post("/v1/unload_lora_adapter")
    async def unload(body: UnloadRequest) -> Model:
        """Removes a task. Requests that have been accepted are still answered."""
        task = service.task(body.lora_name, "lora_name")
        if task.tuning.adapter is None:
            raise RequestError(400, f"lora_name: {task.name!r} is the model itself, not an adapter", "lora_name")
        del service.tasks[task.name]
        return service.model(task)

    return routes


def check_free(service: Service, name: str) -> None:
    """Raises RequestError if a task has this name."""
    if name in service.tasks:
        raise RequestError(400, f"lora_name: {name!r} is taken; unload it first", "lora_name")


async def answer_with(service: Service, task: Task) -> None:
    """Loads an adapter into a model process and answers a prompt with it.

    Raises:
        RequestError: it does not fit the model, or the model is not loaded.
    """
    with service.submit([GenerationRequest("a", "lora_path", 1, task.tuning)]) as batch:
        try:
            await batch.jobs[0].answer()
        except RequestError as error:
            if error.status_code != 500:
                raise
            raise RequestError(400, f"lora_path: the adapter does not fit; {error.reason}", "lora_path") from error


def inside(root: Path, path: str) -> Path:
    """A folder in another one.

    Raises:
        InputError: it is not in it.
    """
    folder = (root / path).resolve()
    if not folder.is_relative_to(root.resolve()):
        raise InputError(f"{path!r} is outside the folder of --adapters-from")
    return folder
