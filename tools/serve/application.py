"""The FastAPI application: all routes of the service, and errors in OpenAI's format."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from tools.serve import adapters, classification
from tools.serve.decisions import routes as decisions
from tools.serve.generation import routes as generation
from tools.serve.metrics import MetricsMiddleware
from tools.serve.requests import OF_FIELD
from tools.serve.responses import Error, Health, Live, Model, ModelList, RequestError
from tools.serve.routing import route_class
from tools.serve.service import Service


def application(service: Service) -> FastAPI:
    """Creates the application of a service whose model is loaded."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.queue.listen()
        yield

    app = FastAPI(
        title="Tunepress",
        description="A fine-tuned model through onnxruntime-genai.",
        version="1",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        responses={"4XX": {"model": Error}, "5XX": {"model": Error}},
    )
    app.include_router(generation.router(service))
    app.include_router(classification.router(service))
    app.include_router(decisions.router(service))
    app.include_router(models_router(service))
    if service.settings.adapters_from:
        app.include_router(adapters.router(service, service.settings.adapters_from))
    app.include_router(status_router(service))
    add_error_handlers(app)
    app.add_middleware(MetricsMiddleware, metrics=service.metrics)
    return app


def models_router(service: Service) -> APIRouter:
    routes = APIRouter(route_class=route_class(service))

    @routes.get("/v1/models")
    async def list_models() -> ModelList:
        """Lists the model and the adapters on it."""
        return ModelList(data=list(map(service.model, service.tasks.values())))

    @routes.get("/v1/models/{name:path}")
    async def get_model(name: str) -> Model:
        """Returns the model with this name."""
        return service.model(service.task(name))

    return routes


def status_router(service: Service) -> APIRouter:
    """GET /health, /health/live and /metrics, which need no API key."""
    routes = APIRouter()

    @routes.get("/health", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        """Returns 200 while the model is loaded and requests are accepted (ready), otherwise 503."""
        state = service.health()
        response.status_code = 200 if state.status == "ok" else 503
        return state

    @routes.get("/health/live")
    async def live() -> Live:
        """Returns 200 as long as the server runs, while the model is loaded again too."""
        return Live()

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {CONTENT_TYPE_LATEST: {}}}})
    async def metrics() -> Response:
        """Returns the metrics in Prometheus' text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return routes


def add_error_handlers(app: FastAPI) -> None:
    """Answers every error in the format of `RequestError`."""

    @app.exception_handler(RequestError)
    async def on_request_error(_: Request, error: RequestError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def on_validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
        return explain(error).response()

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> JSONResponse:
        reason = f"{request.method} {request.url.path}: {error.detail.lower()}"
        return RequestError(error.status_code, reason, headers=dict(error.headers or {})).response()

    @app.exception_handler(Exception)
    async def on_exception(_: Request, error: Exception) -> JSONResponse:
        return RequestError(500, f"the server failed ({type(error).__name__}); see its log").response()


def explain(error: RequestValidationError) -> RequestError:
    """The first problem of a body, with the name of the field."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"][1:]] + ([first["ctx"]["name"]] if first["type"] == OF_FIELD else [])
    name = ".".join(location)
    if first["type"] == "extra_forbidden":
        reason, code = f"unknown parameter {name}", "unknown_parameter"
    elif first["type"] == "missing" and location:
        reason, code = f"{name}: is missing", "missing_parameter"
    elif first["type"] in ("missing", "model_attributes_type"):
        reason, code = "the body must be a JSON object", "invalid_value"
    else:
        message = first["msg"][0].lower() + first["msg"][1:]
        reason, code = (f"{name}: {message}" if location else message), "invalid_value"
    return RequestError(400, reason, name or None, code)
