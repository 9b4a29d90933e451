"""The routes: web page, plain JSON, Open Inference Protocol, health probes and metrics."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

from thaw.html.environment import environment
from thaw.prediction.predict import Prediction
from thaw.serve import binary, protocol
from thaw.serve.access import AccessPolicy
from thaw.serve.service import Service
from thaw.version import __version__
from thaw.web.guard import INTERNAL_ERROR, RequestGuard
from thaw.web.limits import RequestRefused

MAX_FORM_FIELDS = 8
FORM_UNREADABLE = "the form cannot be read; send one file, in the field `file`"
_MESSAGES = {404: "there is no such URL", 405: "this URL does not support that method"}


def create_app(service: Service, access: AccessPolicy) -> RequestGuard:
    """The ASGI application of a service, which starts and stops with the server."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.start)
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_exception_handler(RequestRefused, partial(_refused, service))
    app.add_exception_handler(HTTPException, partial(_rejected, service))
    app.add_exception_handler(Exception, _failed)
    _add_page(app, service, access)
    _add_plain_routes(app, service)
    _add_protocol_routes(app, service)
    _add_health_routes(app, service)
    return RequestGuard(app, service.limits, access, service.metrics)


def _add_page(app: FastAPI, service: Service, access: AccessPolicy) -> None:
    page = environment().get_template("serve.html")

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
        (prediction,) = await service.classify([await _file_of(request)])
        return JSONResponse(_as_json(service, prediction))

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
        return {"name": "thaw", "version": __version__, "extensions": [binary.EXTENSION]}

    @app.get("/v2/models/{name}")
    @app.get("/v2/models/{name}/versions/{version}")
    async def model_metadata(request: Request) -> dict[str, Any]:
        _check_model(service, request)
        classifier = service.classifier
        outputs = protocol.outputs(len(classifier.classes), classifier.review_policy is not None)
        return {
            "name": service.name,
            "versions": [protocol.VERSION],
            "platform": "thaw",
            "inputs": protocol.INPUTS,
            "outputs": outputs,
            "parameters": {
                "task": classifier.task,
                "classes": classifier.classes,
                "decision": classifier.decision.to_json(),
            },
        }

    @app.get("/v2/models/{name}/ready")
    @app.get("/v2/models/{name}/versions/{version}/ready")
    async def model_ready(request: Request) -> JSONResponse:
        _check_model(service, request)
        return _readiness(service)

    @app.post("/v2/models/{name}/infer")
    @app.post("/v2/models/{name}/versions/{version}/infer")
    async def infer(request: Request) -> Response:
        _check_model(service, request)
        body, json_length = await request.body(), request.headers.get(binary.HEADER)
        read = partial(protocol.read_images, body, json_length, service.limits.queue)
        inference, images = await service.in_pool(read)
        predictions = await service.classify(images)
        about, outputs = protocol.response(inference, service.name, predictions, len(service.classifier.classes))
        content, length = binary.message(about, outputs)
        if length is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={binary.HEADER: str(length)})


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


def _check_model(service: Service, request: Request) -> None:
    """Raise `RequestRefused` if the URL names another model or version."""
    if request.path_params["name"] != service.name:
        raise RequestRefused(404, "not_found", f"there is no such model; this server has {service.name}")
    if request.path_params.get("version", protocol.VERSION) != protocol.VERSION:
        raise RequestRefused(404, "not_found", f"there is no such version; the model has version {protocol.VERSION}")


async def _file_of(request: Request) -> bytes:
    """The image file: the body, or the field `file` of a form; raises `RequestRefused`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        return await request.body()
    try:
        async with request.form(max_files=1, max_fields=MAX_FORM_FIELDS) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise RequestRefused(400, "bad_request", "the form has no file in a field called file")
            return await file.read()
    except UnicodeError as error:
        # Codecs such as `undefined`, which a charset may name.
        raise RequestRefused(400, "bad_request", FORM_UNREADABLE) from error


def _as_json(service: Service, prediction: Prediction) -> dict[str, Any]:
    """The reply of /predict; the fields of the review policy are absent if the classifier has none."""
    reply: dict[str, Any] = {
        "label": prediction.label,
        "labels": prediction.labels,
        "confidence": prediction.confidence,
        "probabilities": dict(zip(service.classifier.classes, prediction.probabilities, strict=True)),
        "model": service.name,
    }
    if prediction.out_of_distribution is None:
        return reply
    return {
        **reply,
        "out_of_distribution": prediction.out_of_distribution,
        "ambiguous": prediction.ambiguous,
        "candidates": prediction.candidates,
    }


def _refused(service: Service, _: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestRefused)
    service.metrics.refused(error.reason)
    return JSONResponse({"error": error.message}, error.status, error.headers)


def _rejected(service: Service, _: Request, error: Exception) -> JSONResponse:
    """Requests that the framework rejects: unknown URL, wrong method, malformed form."""
    assert isinstance(error, HTTPException)
    service.metrics.refused("not_found" if error.status_code in _MESSAGES else "bad_request")
    message = _MESSAGES.get(error.status_code, FORM_UNREADABLE)
    return JSONResponse({"error": message}, error.status_code, error.headers)


def _failed(_: Request, error: Exception) -> JSONResponse:
    """Internal errors; the framework re-raises them, and the guard counts and logs them."""
    return JSONResponse({"error": INTERNAL_ERROR}, 500)
