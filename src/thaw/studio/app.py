"""The application: the page with its scripts and styles, and what all screens share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from thaw.errors import ThawError, TrainingError, WriteError
from thaw.html.environment import environment
from thaw.studio import (
    add_routes,
    decide_routes,
    image_routes,
    label_routes,
    mistake_routes,
    ship_routes,
    training_routes,
    try_routes,
    update_routes,
)
from thaw.studio.access import PAGE, StudioAccess
from thaw.studio.workspace import Workspace
from thaw.web.guard import INTERNAL_ERROR, RequestGuard
from thaw.web.limits import HttpLimits, RequestRefused

LIMITS = HttpLimits(body_bytes=16 << 20, held_bytes=64 << 20, grace_seconds=2)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PERMISSIONS = "camera=(self), microphone=(), geolocation=(), display-capture=(), usb=(), serial=(), payment=()"
"""Pages of this server may ask for the camera; pages that they would embed may not, and of the rest nothing may."""
_TYPES = {".js": "text/javascript", ".css": "text/css", ".txt": "text/plain", ".svg": "image/svg+xml"}
_MESSAGES = {404: "there is no such URL", 405: "this URL does not support that method"}


class Quiet:
    """Traffic that nobody counts."""

    def handled(self, route: str, status: int, seconds: float) -> None:
        """Nothing."""

    def refused(self, reason: str) -> None:
        """Nothing."""

    def failed(self) -> None:
        """Nothing."""


def create_app(workspace: Workspace, access: StudioAccess) -> RequestGuard:
    """The ASGI application of a workspace, which begins to compute when the server starts."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        workspace.start()
        yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_exception_handler(RequestRefused, _refused)
    app.add_exception_handler(ThawError, _unusable)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _rejected)
    app.add_exception_handler(Exception, _failed)
    _add_page(app, workspace, access)
    screens = (
        image_routes,
        add_routes,
        label_routes,
        training_routes,
        mistake_routes,
        decide_routes,
        try_routes,
        ship_routes,
        update_routes,
    )
    for part in screens:
        app.include_router(part.router(workspace))
    return RequestGuard(app, LIMITS, access, Quiet())


def _add_page(app: FastAPI, workspace: Workspace, access: StudioAccess) -> None:
    page, refusal = (
        environment().get_template("studio.html"),
        environment().get_template("studio_refusal.html").render(),
    )
    assets = {path: (content, kind) for path, content, kind in _assets(files("thaw.studio").joinpath("static"), "")}
    style = (files("thaw.html").joinpath("templates", "style.css")).read_bytes()
    assets["style.css"] = (style + assets["style.css"][0], _TYPES[".css"])

    @app.get(PAGE)
    async def show_page(request: Request) -> Response:
        given = request.query_params.get("token")
        if given is not None and access.is_token(given):
            reply = RedirectResponse(PAGE, 303)
            reply.set_cookie(access.cookie_name, access.cookie, httponly=True, samesite="strict", path="/")
            return reply
        headers = {"Content-Security-Policy": _POLICY, "Permissions-Policy": _PERMISSIONS}
        if not access.is_known(dict(request.scope["headers"])):
            return HTMLResponse(refusal, 401, headers)
        html = page.render(name=workspace.project.name, csrf=access.csrf)
        return HTMLResponse(html, headers=headers)

    @app.get("/static/{path:path}")
    async def asset(path: str) -> Response:
        if path not in assets:
            raise RequestRefused(404, "not_found", _MESSAGES[404])
        content, kind = assets[path]
        return Response(content, media_type=kind)


def _assets(folder: Traversable, prefix: str) -> list[tuple[str, bytes, str]]:
    """(path, content, type) of every file of the package that is sent to the browser."""
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += _assets(entry, f"{prefix}{entry.name}/")
        elif kind := _TYPES.get("." + entry.name.rpartition(".")[2]):
            found.append((prefix + entry.name, entry.read_bytes(), kind))
    return found


def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestRefused)
    return JSONResponse({"error": error.message}, error.status, error.headers)


def _unusable(_: Request, error: Exception) -> JSONResponse:
    """Errors that the user can fix: a full disk, an image that cannot be read, a run that trains already."""
    status = 507 if isinstance(error, WriteError) else 409 if isinstance(error, TrainingError) else 422
    return JSONResponse({"error": str(error)}, status)


def _malformed(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "the request is not what this URL expects"}, 422)


def _rejected(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": _MESSAGES.get(error.status_code, "the request cannot be read")}, error.status_code)


def _failed(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": INTERNAL_ERROR}, 500)
