"""Routes of images and labels: which there are, how they look, and edits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from thaw.csv_text import csv_text
from thaw.studio import messages
from thaw.studio.labels import Conflict, Edit
from thaw.studio.table import label_rows
from thaw.studio.workspace import Workspace, selected
from thaw.web.limits import RequestRefused

_KEPT = {"Cache-Control": "private, max-age=31536000, immutable"}
"""Of JPEGs, whose URLs name their content."""


def router(workspace: Workspace) -> APIRouter:
    """The routes of a workspace."""
    routes = APIRouter()
    _add_images(routes, workspace)
    _add_image_files(routes, workspace)
    _add_edits(routes, workspace)
    return routes


def _add_images(routes: APIRouter, workspace: Workspace) -> None:
    @routes.get("/api/state")
    def state() -> dict[str, Any]:
        return {
            **messages.state(workspace),
            **messages.adding(workspace),
            "name": workspace.project.name,
            "folder": str(workspace.project.images),
            "project": str(workspace.project.path),
            "notes": workspace.notes,
        }

    @routes.get("/api/images")
    def images(show: str = "all", split: str = "", text: str = "") -> dict[str, Any]:
        try:
            return {"ids": selected(workspace, show, split, text)}
        except LookupError as error:
            raise RequestRefused(404, "not_found", str(error)) from error

    @routes.get("/api/rows")
    def rows(ids: str, pile: str = "") -> list[dict[str, Any]]:
        return messages.described(workspace, messages.row_numbers(workspace, ids), pile)

    @routes.post("/api/piles")
    def find_piles() -> dict[str, Any]:
        workspace.refresh_piles()
        return messages.state(workspace)


def _add_image_files(routes: APIRouter, workspace: Workspace) -> None:
    async def jpeg(image: str, digest: str, make: Callable[[int], bytes]) -> Response:
        row = messages.row_number(workspace, image)
        if workspace.images.version(row) != digest:
            raise RequestRefused(404, "not_found", "there is no such image")
        content = await asyncio.get_running_loop().run_in_executor(workspace.pool, partial(make, row))
        return Response(content, media_type="image/jpeg", headers=_KEPT)

    @routes.get("/thumbnails/{image}/{digest}")
    async def thumbnail(image: str, digest: str) -> Response:
        return await jpeg(image, digest, workspace.thumbnails.small)

    @routes.get("/full/{image}/{digest}")
    async def full(image: str, digest: str) -> Response:
        return await jpeg(image, digest, workspace.thumbnails.large)


def _add_edits(routes: APIRouter, workspace: Workspace) -> None:
    labels = workspace.labels

    @routes.post("/api/edits")
    def edit(request: messages.EditRequest) -> JSONResponse:
        seen, after = request.seen(workspace), request.after(workspace)
        return _done(workspace, lambda: labels.edit(seen, after))

    @routes.post("/api/undo")
    def undo(request: messages.UndoRequest) -> JSONResponse:
        return _done(workspace, lambda: labels.undo(request.edit))

    @routes.get("/labels.csv")
    def table() -> Response:
        headers = {"Content-Disposition": 'attachment; filename="labels.csv"'}
        content = csv_text(label_rows(workspace.images, labels.marks()))
        return Response(content.encode("utf-8"), media_type="text/csv; charset=utf-8", headers=headers)


def _done(workspace: Workspace, make: Callable[[], Edit | None]) -> JSONResponse:
    """Make an edit; a conflict is replied to with the marks of now."""
    try:
        made = make()
    except Conflict as conflict:
        present = [{"id": row, "mark": mark.to_json()} for row, mark in conflict.present.items()]
        error = "changed meanwhile in another window; look again"
        return JSONResponse({"error": error, "marks": present, **messages.state(workspace)}, 409)
    changes = made.changes if made else ()
    marks = [{"id": row, "mark": change.after.to_json()} for row, change in changes]
    return JSONResponse({"marks": marks, **messages.state(workspace)})
