"""The routes: a page, a plain way to ask, the Open Inference Protocol, probes and figures."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from jinja2 import Template
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

from thaw.serve import protocol
from thaw.serve.guard import FAULT, AccessPolicy, RequestGuard
from thaw.serve.limits import RequestRefused
from thaw.serve.service import Answer, Service
from thaw.version import __version__

MOST_FIELDS = 8
"""Fields of a form that are looked at."""
_SENTENCES = {404: "there is no such address", 405: "this address does not take that method"}


def create_app(service: Service, access: AccessPolicy) -> RequestGuard:
    """The ASGI application of one service; it starts and ends with the server that runs it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.start)
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_exception_handler(RequestRefused, partial(_refused, service))
    app.add_exception_handler(HTTPException, partial(_not_handled, service))
    app.add_exception_handler(Exception, _failed)
    _add_page(app, service, access)
    _add_plain_routes(app, service)
    _add_protocol_routes(app, service)
    _add_health_routes(app, service)
    return RequestGuard(app, service.limits, access, service.metrics)


def _add_page(app: FastAPI, service: Service, access: AccessPolicy) -> None:
    page = Template(files("thaw.serve").joinpath("page.html").read_text(encoding="utf-8"), autoescape=True)

    @app.get("/")
    async def show_page() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' blob: data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        html = page.render(nonce=nonce, name=service.name, needs_token=access.token is not None)
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})


def _add_plain_routes(app: FastAPI, service: Service) -> None:
    @app.post("/predict")
    async def predict(request: Request) -> JSONResponse:
        (answer,) = await service.classify([await _file_of(request)])
        return JSONResponse(_as_json(service, answer))

    @app.post("/explain")
    async def explain(request: Request) -> Response:
        label = request.query_params.get("class")
        return Response(await service.explain(await _file_of(request), label), media_type="image/png")

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_protocol_routes(app: FastAPI, service: Service) -> None:
    @app.get("/v2")
    async def server_metadata() -> dict[str, Any]:
        return {"name": "thaw", "version": __version__, "extensions": []}

    @app.get("/v2/models/{name}")
    async def model_metadata(name: str) -> dict[str, Any]:
        _check_name(service, name)
        classes = service.classifier.classes
        outputs = [{"name": protocol.PROBABILITIES, "datatype": "FP32", "shape": [-1, len(classes)]}]
        return {
            "name": service.name,
            "platform": "thaw",
            "inputs": protocol.INPUTS,
            "outputs": outputs,
            "parameters": {"task": service.classifier.task, "classes": classes},
        }

    @app.get("/v2/models/{name}/ready")
    async def model_ready(name: str) -> JSONResponse:
        _check_name(service, name)
        return _readiness(service)

    @app.post("/v2/models/{name}/infer")
    async def infer(name: str, request: Request) -> JSONResponse:
        _check_name(service, name)
        body = await request.body()
        asked, images = await service.in_pool(partial(protocol.read_images, body, service.limits.queue))
        answers = await service.classify(images)
        return JSONResponse(protocol.response(asked, service.name, answers, len(service.classifier.classes)))


def _add_health_routes(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/ready")
    @app.get("/v2/health/ready")
    async def ready() -> JSONResponse:
        return _readiness(service)


def _readiness(service: Service) -> JSONResponse:
    return JSONResponse({"ready": service.is_ready}, 200 if service.is_ready else 503)


def _check_name(service: Service, name: str) -> None:
    if name != service.name:
        raise RequestRefused(404, "not_found", "there is no such model")


async def _file_of(request: Request) -> bytes:
    """The image file that is the body, or the field `file` of a form; raises `RequestRefused`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        return await request.body()
    async with request.form(max_files=1, max_fields=MOST_FIELDS) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise RequestRefused(400, "bad_request", "the form has no file in a field called file")
        return await file.read()


def _as_json(service: Service, answer: Answer) -> dict[str, Any]:
    """What /predict says: `label` joins several labels by `|`; `out_of_distribution` is absent where nobody can tell."""
    probabilities = zip(service.classifier.classes, answer.probabilities.tolist(), strict=True)
    said: dict[str, Any] = {
        "label": "|".join(answer.labels),
        "labels": answer.labels,
        "confidence": answer.confidence,
        "probabilities": dict(probabilities),
        "model": service.name,
    }
    if answer.out_of_distribution is None:
        return said
    return {**said, "out_of_distribution": answer.out_of_distribution, "candidates": list(answer.candidates)}


def _refused(service: Service, _: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestRefused)
    service.metrics.refused(error.reason)
    return JSONResponse({"error": error.sentence}, error.status, error.headers)


def _not_handled(service: Service, _: Request, error: Exception) -> JSONResponse:
    """What the framework refuses: an address, a method, a form that cannot be read."""
    assert isinstance(error, HTTPException)
    service.metrics.refused("not_found" if error.status_code in _SENTENCES else "bad_request")
    sentence = _SENTENCES.get(error.status_code, "the form cannot be read")
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


def _failed(_: Request, error: Exception) -> JSONResponse:
    """A fault; the framework raises it again, and the guard counts and logs it."""
    return JSONResponse({"error": FAULT}, 500)
