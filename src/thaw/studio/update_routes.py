"""Routes of updates, on the screen Train."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from thaw.csv_text import csv_text
from thaw.errors import TrainingError
from thaw.studio.table import label_rows
from thaw.studio.training_routes import check_not_replaced, finished_run
from thaw.studio.workspace import Workspace


class UpdateRequest(BaseModel):
    """A run learns what it does not know of the labels of now."""

    model_config = ConfigDict(extra="forbid", strict=True)
    run: Annotated[str, Field(max_length=80)]


def router(workspace: Workspace) -> APIRouter:
    """The routes of a workspace."""
    routes, updates = APIRouter(), workspace.updates

    @routes.get("/api/update")
    def now() -> dict[str, Any]:
        return updates.progress()

    @routes.post("/api/update")
    def start(request: UpdateRequest) -> dict[str, Any]:
        run = finished_run(workspace, request.run)
        if workspace.training.is_running or workspace.training.planned.is_running:
            raise TrainingError("a run trains or is planned; stop it, or wait until it has finished")
        marks = workspace.labels.marks()
        check_not_replaced(workspace, marks)
        # First: nothing is started that is not written down.
        workspace.note("update", run=request.run)
        updates.start(run, csv_text(label_rows(workspace.images, marks)))
        return updates.progress()

    return routes
