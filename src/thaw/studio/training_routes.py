"""Routes of the screen Train."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import HTMLResponse, Response, StreamingResponse

from thaw.csv_text import csv_text
from thaw.errors import DataError, ThawError, TrainingError
from thaw.formats import listed
from thaw.recipe.reference import settings as all_settings
from thaw.run_folder import RunFolder
from thaw.studio.marks import Mark
from thaw.studio.run_progress import progress, result
from thaw.studio.table import label_rows
from thaw.studio.training import Labelled
from thaw.studio.workspace import Workspace
from thaw.web.limits import RequestRefused

_PAUSE, _HEARTBEAT = 1.0, 15
_LEAST = 3
"""Images of a class."""
_REPORT_POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'"
)
"""A report is a file with everything in it, which needs nothing of this server and gets nothing of it."""

_Key = Annotated[str, Field(pattern=r"^[a-z0-9_.]+$", max_length=80)]
_Value = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=500)]


class PlanRequest(BaseModel):
    """The next run, with settings as on the command line."""

    model_config = ConfigDict(extra="forbid", strict=True)
    settings: Annotated[dict[_Key, _Value], Field(max_length=50)] = {}


class StartRequest(PlanRequest):
    """A new run, as it was planned or not."""

    with_plan: bool = False


class CancelRequest(BaseModel):
    """A run that waits is taken out of the queue."""

    model_config = ConfigDict(extra="forbid", strict=True)
    number: Annotated[int, Field(ge=1)]


def router(workspace: Workspace) -> APIRouter:
    """The routes of a workspace."""
    routes = APIRouter()
    _add_runs(routes, workspace)
    _add_changes(routes, workspace)
    return routes


def _add_runs(routes: APIRouter, workspace: Workspace) -> None:
    training = workspace.training

    @routes.get("/api/settings")
    def settings() -> list[dict[str, str]]:
        return [vars(one) for one in all_settings() if not one.key.startswith("phases.")]

    @routes.get("/api/training")
    def now() -> dict[str, Any]:
        return progress(training)

    @routes.get("/api/training/events")
    async def events() -> Response:
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(_events(workspace), media_type="text/event-stream", headers=headers)

    @routes.get("/api/runs")
    def runs() -> list[dict[str, Any]]:
        return [_result(run) for run in training.finished_runs()]

    @routes.get("/runs/{name}/report")
    def report(name: str) -> Response:
        run = finished_run(workspace, name)
        if not run.report.is_file():
            raise RequestRefused(404, "not_found", "this run has no report")
        return HTMLResponse(run.report.read_bytes(), headers={"Content-Security-Policy": _REPORT_POLICY})


def _add_changes(routes: APIRouter, workspace: Workspace) -> None:
    training = workspace.training

    @routes.post("/api/training")
    def start(request: StartRequest) -> dict[str, Any]:
        training.start(_labelled(workspace), request.settings, request.with_plan)
        return progress(training)

    @routes.post("/api/training/plan")
    def plan(request: PlanRequest) -> dict[str, Any]:
        training.plan(_labelled(workspace), request.settings)
        return progress(training)

    @routes.post("/api/training/plan/cancel")
    def cancel_plan() -> dict[str, Any]:
        training.planned.cancel()
        return progress(training)

    @routes.post("/api/training/stop")
    def stop() -> dict[str, Any]:
        training.stop()
        # Afterwards: what trains can be stopped on a full disk, too.
        workspace.note("stop training")
        return progress(training)

    @routes.post("/api/training/resume")
    def resume() -> dict[str, Any]:
        training.resume()
        return progress(training)

    @routes.post("/api/training/cancel")
    def cancel(request: CancelRequest) -> dict[str, Any]:
        training.cancel(request.number)
        return progress(training)


def _labelled(workspace: Workspace) -> Labelled:
    """The labels of now; raises `RequestRefused` where nothing can be trained on them."""
    edits, marks = workspace.labels.changed, workspace.labels.marks()
    counts = Counter(mark.label for mark in marks if mark.label is not None)
    if len(counts) < 2:
        raise RequestRefused(422, "bad_request", "label images of at least two classes first")
    if few := [f"{name} has {images}" for name, images in counts.items() if images < _LEAST]:
        problem = f"each class needs {_LEAST} images, one of them to validate on and one to test on: {listed(few)}"
        raise RequestRefused(422, "bad_request", problem)
    check_not_replaced(workspace, marks)
    images = workspace.images
    digests = {str(images.file(row)): images.digests[row] for row, mark in enumerate(marks) if mark.label is not None}
    return Labelled(csv_text(label_rows(images, marks)), counts.total(), edits, digests)


def _result(run: RunFolder) -> dict[str, Any]:
    """What a run reached; of one whose files are damaged, only what is wrong, so that the others are still listed."""
    try:
        return result(run)
    except ThawError as error:
        return {"run": run.path.name, "splits": {}, "error": str(error)}


async def _events(workspace: Workspace) -> AsyncIterator[bytes]:
    """The progress of the run, each time it has changed, as server-sent events."""
    sent, silent = "", 0.0
    while not workspace.is_stopping():
        try:
            now = json.dumps(await asyncio.to_thread(progress, workspace.training), allow_nan=False)
        except (DataError, TrainingError) as error:
            now = json.dumps({"state": "failed", "log": [str(error)]})
        if now != sent:
            yield f"data: {now}\n\n".encode()
            sent, silent = now, 0.0
        elif silent > _HEARTBEAT:
            # So that a connection that has gone is noticed.
            yield b": \n\n"
            silent = 0.0
        await asyncio.sleep(_PAUSE)
        silent += _PAUSE


def check_not_replaced(workspace: Workspace, marks: Sequence[Mark]) -> None:
    """Raise `RequestRefused` if the file of an image that has a label is not the one that was labelled."""
    if problem := workspace.replaced([row for row, mark in enumerate(marks) if mark.label is not None]):
        raise RequestRefused(409, "changed", problem)


def finished_run(workspace: Workspace, name: str) -> RunFolder:
    """The finished run of a name; raises `RequestRefused` where there is none."""
    run = RunFolder.named(workspace.project.runs, name)
    if run is None or not run.is_finished:
        raise RequestRefused(404, "not_found", "there is no such run")
    return run
