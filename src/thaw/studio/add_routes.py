"""Routes that take images in, and give the labelled ones back in class folders."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import StreamingResponse

from thaw.studio import messages
from thaw.studio.class_folders import copy_to_class_folders, zipped
from thaw.studio.uploads import Part
from thaw.studio.workspace import COPY, Workspace
from thaw.web.limits import RequestRefused

_Bytes = Annotated[int, Query(ge=0, le=1 << 50)]


class AnswerRequest(BaseModel):
    """Whether the folders of added images are their labels."""

    model_config = ConfigDict(extra="forbid", strict=True)
    accept: bool


def router(workspace: Workspace) -> APIRouter:
    """The routes of a workspace."""
    routes = APIRouter()
    _add_uploads(routes, workspace)
    _add_class_folders(routes, workspace)
    return routes


def _add_uploads(routes: APIRouter, workspace: Workspace) -> None:
    additions = workspace.additions

    def receive(path: str, part: Part) -> dict[str, Any]:
        with workspace.uploads.receive(part) as stream:
            if stream is None:
                return {"waiting": part.size - part.at - len(part.data)}
            is_archive = path.lower().endswith(".zip")
            outcome = additions.add_archive(stream) if is_archive else additions.add_image(path, stream)
        return outcome.to_json()

    @routes.post("/api/uploads")
    async def upload(request: Request, path: str, key: str, at: _Bytes, size: _Bytes) -> dict[str, Any]:
        part = Part(key, at, size, await request.body())
        return await asyncio.to_thread(receive, path, part)

    @routes.post("/api/uploads/end")
    def end() -> dict[str, Any]:
        added = additions.propose()
        workspace.refresh_piles()
        return {"added": added, **messages.state(workspace), **messages.adding(workspace)}

    @routes.post("/api/folder-labels")
    def answer(request: AnswerRequest) -> dict[str, Any]:
        additions.answer(request.accept)
        return {**messages.state(workspace), **messages.adding(workspace)}


def _add_class_folders(routes: APIRouter, workspace: Workspace) -> None:
    def copy() -> None:
        advance = workspace.background.bar("copy into class folders")
        copied = copy_to_class_folders(workspace.project, workspace.images, workspace.labels.marks(), advance)
        workspace.copied = copied
        workspace.note(COPY, path=str(copied.path), images=copied.images)

    @routes.post("/api/class-folders")
    def make() -> dict[str, Any]:
        _check_labelled(workspace)
        workspace.background.submit("copy", copy)
        return messages.state(workspace)

    @routes.get("/class-folders.zip")
    def download() -> StreamingResponse:
        _check_labelled(workspace)
        headers = {"Content-Disposition": 'attachment; filename="class-folders.zip"'}
        pieces = zipped(workspace.images, workspace.labels.marks())
        return StreamingResponse(pieces, media_type="application/zip", headers=headers)


def _check_labelled(workspace: Workspace) -> None:
    if all(mark.label is None for mark in workspace.labels.marks()):
        raise RequestRefused(422, "bad_request", "label images first: no image has a label")
