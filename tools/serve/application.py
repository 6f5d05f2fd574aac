"""The application: all routes of the service, errors in one shape, and what is counted of each request."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tools.serve import classification, generation
from tools.serve.door import door
from tools.serve.errors import RequestError
from tools.serve.metrics import Metrics
from tools.serve.replies import Error, Health, Model, Models
from tools.serve.service import Service

logger = logging.getLogger("uvicorn.error")


def application(service: Service) -> FastAPI:
    """All routes of a service whose model has been loaded."""

    @asynccontextmanager
    async def listening(_: FastAPI) -> AsyncIterator[None]:
        service.worker.listen()
        yield

    app = FastAPI(
        title="Tunepress",
        description="A fine-tuned model through onnxruntime-genai.",
        version="1",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        lifespan=listening,
        responses={"4XX": {"model": Error}, "5XX": {"model": Error}},
    )
    app.include_router(generation.router(service))
    app.include_router(classification.router(service))
    app.include_router(models(service))
    app.include_router(state(service))
    refuse_in_one_shape(app)
    app.add_middleware(Counted, metrics=service.metrics)
    return app


def models(service: Service) -> APIRouter:
    """GET /v1/models."""
    routes = APIRouter(route_class=door(service))
    served = Model(id=service.settings.name, created=service.created)

    @routes.get("/v1/models")
    async def models() -> Models:
        """The one model."""
        return Models(data=[served])

    @routes.get("/v1/models/{name}")
    async def model(name: str) -> Model:
        """The model of a name."""
        service.check_model(name)
        return served

    return routes


def state(service: Service) -> APIRouter:
    """GET /health and /metrics, which ask for no key."""
    routes = APIRouter()

    @routes.get("/health", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        """200 while questions are taken and the model is loaded, otherwise 503."""
        found = service.health()
        response.status_code = 200 if found.status == "ok" else 503
        return found

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {CONTENT_TYPE_LATEST: {}}}})
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return routes


def refuse_in_one_shape(app: FastAPI) -> None:
    """Has every error answered as `RequestError` says it."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, refusal: RequestError) -> JSONResponse:
        return refusal.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return explained(error).response()

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        reason = f"{request.method} {request.url.path}: {error.detail.lower()}"
        return RequestError(error.status_code, reason, headers=dict(error.headers or {})).response()

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return RequestError(500, f"the server failed ({type(error).__name__}); its log says where").response()


def explained(error: RequestValidationError) -> RequestError:
    """The first thing that is wrong with a body, by the name of its field."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"][1:]]
    name = ".".join(place)
    if first["type"] == "extra_forbidden":
        reason, code = f"unknown parameter {name}: nothing here reads it", "unknown_parameter"
    elif first["type"] == "missing" and place:
        reason, code = f"{name}: is missing", "missing_parameter"
    elif first["type"] in ("missing", "model_attributes_type"):
        reason, code = "the body must be a JSON object", "invalid_value"
    else:
        said = first["msg"][0].lower() + first["msg"][1:]
        reason, code = (f"{name}: {said}" if place else said), "invalid_value"
    return RequestError(400, reason, name or None, code)


class Counted:
    """Counts every request by its route and status, and how long it took."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 500

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counting)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.latency.labels(route).observe(time.monotonic() - start)
