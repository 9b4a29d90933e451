"""Routes of the screen Try: images that are sent, and those that arrive in a watched folder."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from thaw.run_folder import RunFolder
from thaw.studio.training_routes import finished_run
from thaw.studio.workspace import Workspace

if TYPE_CHECKING:
    from thaw.studio.run_classifier import TriedImage

_CLASSES = 8
"""Of which the probability is shown, the most likely ones."""


class WatchRequest(BaseModel):
    """A folder is watched, and its new images are classified by a run."""

    model_config = ConfigDict(extra="forbid", strict=True)
    folder: Annotated[str, Field(min_length=1, max_length=1000)]
    run: Annotated[str, Field(max_length=80)]


def router(workspace: Workspace) -> APIRouter:
    """The routes of a workspace; they need PyTorch, which the first screen does not wait for."""
    routes = APIRouter()

    def classified(run: RunFolder, data: bytes) -> TriedImage:
        from thaw.studio.run_classifier import classify

        with workspace.computing:
            return classify(run, data)

    @routes.post("/api/try/{name}")
    async def try_image(name: str, request: Request) -> dict[str, Any]:
        run, data = finished_run(workspace, name), await request.body()
        return _message(await asyncio.to_thread(classified, run, data))

    @routes.get("/api/watch")
    def watched(watch: int = 0, after: int = 0) -> dict[str, Any]:
        return _watched(workspace, watch, after)

    @routes.post("/api/watch")
    def watch(request: WatchRequest) -> dict[str, Any]:
        run = finished_run(workspace, request.run)
        folder = workspace.project.watched_folder(request.folder, workspace.watchable)
        workspace.watching.start(folder, request.run, lambda data: classified(run, data))
        return _watched(workspace)

    @routes.post("/api/watch/stop")
    def stop() -> dict[str, Any]:
        workspace.watching.stop()
        return _watched(workspace)

    return routes


def _watched(workspace: Workspace, number: int = 0, after: int = 0) -> dict[str, Any]:
    """What is watched, and its images, the newest first; of the watch of a number those after the one of a number."""
    now, suggested = workspace.watching.now, str(workspace.watchable or "")
    if now is None:
        return {"watch": 0, "suggested": suggested}
    known = after if number == now.number else 0
    return {
        "watch": now.number,
        "suggested": suggested,
        "folder": str(now.folder),
        "run": now.run,
        "before": now.watch.before,
        "waiting": now.watch.waiting,
        "classified": now.watch.classified,
        "flagged": now.watch.flagged,
        "unreadable": now.watch.unreadable,
        "problem": now.watch.problem,
        "arrivals": [
            {
                "number": one.number,
                "arrived": one.arrived,
                "name": one.name,
                **(_message(one.tried) if one.tried else {"error": one.reason}),
            }
            for one in now.watch.arrivals
            if one.number > known
        ],
    }


def _message(tried: TriedImage) -> dict[str, Any]:
    named = zip(tried.classes, tried.prediction.probabilities, strict=True)
    likely = sorted(named, key=lambda item: -item[1])[:_CLASSES]
    return {
        "label": ", ".join(tried.prediction.labels),
        "confidence": tried.prediction.confidence,
        "review": tried.prediction.review,
        "probabilities": [{"name": name, "probability": probability} for name, probability in likely],
        "view": _data_url(tried.view),
        "explained": tried.explained,
        "evidence": _data_url(tried.evidence),
    }


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}" if png else ""
