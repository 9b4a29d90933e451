"""Routes of the screen Label next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from thaw.studio import messages
from thaw.studio.workspace import Workspace
from thaw.web.limits import RequestRefused

if TYPE_CHECKING:
    from thaw.studio.features import ImageFeatures
    from thaw.studio.label_queue import Queue, Suggestion

_NUMBER, _SIMILAR = 10, 8
_MAX_CURVE = 200


def router(workspace: Workspace) -> APIRouter:
    """The routes of a workspace; whatever computes is done in a thread, one request at a time."""
    routes = APIRouter()

    @routes.get("/api/queue")
    def queue(skip: str = "") -> dict[str, Any]:
        from thaw.studio.label_queue import make_queue

        features, skipped = _features(workspace), messages.row_numbers(workspace, skip) if skip else []
        with workspace.computing:
            made = make_queue(features, workspace.labels.marks(), workspace.labels.classes, _NUMBER, set(skipped))
            workspace.note_outlook(made.labelled, made.outlook)
        return {**_queue(made), "curve": workspace.curve[-_MAX_CURVE:]}

    @routes.get("/api/suggestions")
    def suggestions(ids: str) -> dict[str, Any]:
        from thaw.studio.label_queue import suggest

        features, rows = _features(workspace), messages.row_numbers(workspace, ids)
        with workspace.computing:
            found = suggest(features, workspace.labels.marks(), workspace.labels.classes, rows)
        return {"suggestions": [_suggestion(row, one) for row, one in found.items()]}

    @routes.get("/api/similar/{row:int}")
    def similar(row: int) -> dict[str, Any]:
        from thaw.studio.label_queue import similar as find_similar

        (checked,) = messages.row_numbers(workspace, str(row))
        return {"ids": find_similar(_features(workspace), workspace.labels.marks(), checked, _SIMILAR)}

    return routes


def _features(workspace: Workspace) -> ImageFeatures:
    if workspace.features is None:
        error = workspace.background.status.error
        raise RequestRefused(503, "not_ready", error or "features are being extracted", retry_after=1)
    return workspace.features


def _queue(queue: Queue) -> dict[str, Any]:
    outlook = queue.outlook
    return {
        "images": [
            {"id": row, "cluster": cluster, **_suggestion(row, queue.suggestions.get(row))}
            for row, cluster in zip(queue.rows, queue.clusters, strict=True)
        ],
        "reason": queue.reason,
        "why": queue.why,
        "outlook": outlook.sentence if outlook else "",
        "can_stop": queue.can_stop,
        "labelled": queue.labelled,
        "waiting": queue.waiting,
        "duplicates": queue.duplicates,
    }


def _suggestion(row: int, suggestion: Suggestion | None) -> dict[str, Any]:
    if suggestion is None:
        return {"id": row, "suggested": None, "confidence": None}
    return {"id": row, "suggested": suggestion.label, "confidence": suggestion.confidence}
