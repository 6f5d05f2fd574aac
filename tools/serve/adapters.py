"""POST /v1/load_lora_adapter and /v1/unload_lora_adapter: adapters come and go while the server runs, with vLLM's names."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from tools.serve.requests import Strict, Words
from tools.serve.responses import Model, RequestError
from tools.serve.routing import route_class, while_connected
from tools.serve.service import Service
from tools.serve.tasks import read_adapter
from tools.serve.workers.messages import GenerationRequest
from tunepress.core.errors import InputError


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
        if body.lora_name in service.tasks:
            raise RequestError(400, f"lora_name: {body.lora_name!r} is taken; unload it first", "lora_name")
        settings = service.settings
        try:
            task = read_adapter(body.lora_name, inside(root, body.lora_path), settings.model, settings.abstain_below)
        except InputError as error:
            raise RequestError(400, f"lora_path: {error}", "lora_path") from error
        with service.submit([GenerationRequest("a", "lora_path", 1, task.tuning)]) as batch:
            closed = await while_connected(request, batch.jobs[0].answer())
        if isinstance(closed, Response):
            return closed
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


def inside(root: Path, path: str) -> Path:
    """A folder in another one.

    Raises:
        InputError: it is not in it.
    """
    folder = (root / path).resolve()
    if not folder.is_relative_to(root.resolve()):
        raise InputError(f"{path!r} is outside the folder of --adapters-from")
    return folder
