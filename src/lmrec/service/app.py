"""The application: the gate, the routes, and how errors leave."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from lmrec import __version__
from lmrec.errors import LmrecError
from lmrec.feedback.errors import StoreError
from lmrec.service.errors import ErrorAnswer, error_answer
from lmrec.service.gate import Gate, internal, render_json
from lmrec.service.logs import log_failure
from lmrec.service.problems import describe_problems
from lmrec.service.routes import (
    console,
    events,
    experiments,
    explanations,
    generations,
    health,
    items,
    keys,
    rankings,
    recommendations,
    reviews,
    rules,
    search,
    stats,
    users,
)
from lmrec.service.state import ServiceState

_ABOUT = """Recommendations from a fine-tuned language model, live.

Send what users do to `/v1/events`; ask `/v1/recommendations` with a user, with items, or with words, and
`/v1/rankings` for the order of items that you have chosen. Errors are always
`{"error": {"code", "message"}}`; a message says the value, the rule and the way out. Where there are keys, send one as
`Authorization: Bearer KEY`. After 429 and 503, wait the seconds in `Retry-After` and send the same again: events carry
ids, so a retry counts nothing twice.
"""
_ROUTERS = tuple(
    module.router
    for module in (
        recommendations,
        rankings,
        search,
        explanations,
        events,
        items,
        users,
        rules,
        reviews,
        generations,
        experiments,
        keys,
        stats,
        health,
    )
)
_CODES = {404: "not_found", 405: "method", 400: "json"}


def create_app(state: ServiceState) -> FastAPI:
    """The service as an ASGI application; it starts `state` and closes it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state.start()
        try:
            yield
        finally:
            state.on_stop()
            await run_in_threadpool(state.close)

    app = _App(
        title="lmrec", version=__version__, description=_ABOUT, lifespan=lifespan,
        docs_url=None, redoc_url=None,  # both load scripts from elsewhere, which this service must work without
    )  # fmt: skip
    app.state.service = state
    for router in _ROUTERS:
        app.include_router(router)
    console.add_console(app)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(LmrecError, _said)
    app.add_middleware(Gate, state=state)
    return app


class _App(FastAPI):
    """FastAPI, whose OpenAPI says that a key is optional: a service without keys answers its own machine without one."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            schema = super().openapi()
            for path in schema["paths"].values():
                for operation in path.values():
                    if "security" in operation:
                        operation["security"] = [*operation["security"], {}]
        return super().openapi()


async def _said(request: Request, error: Exception) -> Response:
    assert isinstance(error, LmrecError)
    answer = error_answer(error)
    if answer is None or isinstance(error, StoreError):
        log_failure("failure", error, request_id=request.state.request_id)
    return _response(answer or internal(request.state.request_id))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {
        404: "there is nothing at this path. The paths are in /openapi.json",
        405: f"{request.method} is not possible here. The methods of each path are in /openapi.json",
        400: "the body cannot be read. Send JSON in UTF-8, with whole numbers of fewer than 4,000 digits",
    }
    status = error.status_code
    answer = ErrorAnswer(status, _CODES.get(status, "refused"), messages.get(status, str(error.detail)))
    headers = {**(error.headers or {}), "Allow": _allowed(request)} if status == 405 else error.headers
    return _response(answer, headers)


def _allowed(request: Request) -> str:
    """All methods of the path; the router itself names those of the first route only."""
    path = request.scope["path"]
    routes = [route for router in _ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    declared = [route for route in routes if route.include_in_schema and route.path_regex.match(path)]
    # Where several paths fit, the one with the longest fixed part is meant: /items/x/flag before /items/x.
    longest = max((len(route.path_format) for route in declared), default=0)
    methods = {method for route in declared if len(route.path_format) == longest for method in route.methods or ()}
    return ", ".join(sorted(methods)) or "GET"


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    broken = error.errors()[0]["type"] == "json_invalid"
    answer = ErrorAnswer(400 if broken else 422, "json" if broken else "invalid", describe_problems(error.errors()))
    return _response(answer)


def _response(answer: ErrorAnswer, headers: Mapping[str, str] | None = None) -> Response:
    extra = dict(headers or {})
    if answer.retry_after_s is not None:
        extra["Retry-After"] = str(answer.retry_after_s)
    return Response(render_json(answer.body()), answer.status, extra, media_type="application/json")
