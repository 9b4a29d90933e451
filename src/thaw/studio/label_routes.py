"""Routes of the screen Label next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from thaw.studio import messages
from thaw.studio.workspace import MORE_LABELS, Workspace
from thaw.web.limits import RequestRefused

if TYPE_CHECKING:
    from thaw.labelling.strategy import Strategy
    from thaw.studio.features import Snapshot
    from thaw.studio.label_queue import Queue, Suggestion

_NUMBER, _SIMILAR = 10, 8
_POINTS = 200
"""Of the curve."""
_STOP_BELOW = 0.005
"""Gain of up to a hundred more labels, in accuracy, below which one can stop."""


def router(workspace: Workspace) -> APIRouter:
    """The routes of a workspace; whatever computes is done in a thread, one request at a time."""
    routes, strategies = APIRouter(), _Strategies()

    @routes.get("/api/queue")
    def queue(skip: str = "") -> dict[str, Any]:
        from thaw.studio.label_queue import make_queue

        snapshot, skipped = _snapshot(workspace), messages.row_numbers(workspace, skip) if skip else []
        labels = sum(mark.label is not None for mark in snapshot.marks)
        with workspace.computing:
            made = make_queue(snapshot, _NUMBER, set(skipped), strategies.known(labels))
        strategies.remember(labels, made.strategy)
        workspace.refresh_outlook(labels, made.waiting)
        return _queue(made)

    @routes.get("/api/outlook")
    def outlook() -> dict[str, Any]:
        found = workspace.outlook
        can_stop = found is not None and found.gain is not None and found.gain < _STOP_BELOW
        return {"sentence": found.sentence if found else "", "can_stop": can_stop, "curve": workspace.curve[-_POINTS:]}

    @routes.get("/api/suggestions")
    def suggestions(ids: str) -> dict[str, Any]:
        from thaw.studio.label_queue import suggest

        snapshot = _snapshot(workspace)
        rows = [row for row in messages.row_numbers(workspace, ids) if row < len(snapshot.marks)]
        with workspace.computing:
            found = suggest(snapshot, rows)
        return {"suggestions": [_suggestion(row, one) for row, one in found.items()]}

    @routes.get("/api/similar/{image}")
    def similar(image: str) -> dict[str, Any]:
        from thaw.studio.label_queue import similar as find_similar

        row, snapshot = messages.row_number(workspace, image), _snapshot(workspace)
        # Features of an image that was just added are still to come.
        return {"ids": find_similar(snapshot, row, _SIMILAR) if row < len(snapshot.marks) else []}

    return routes


class _Strategies:
    """How images are chosen, which is measured with five fits, and again once there are a tenth more labels."""

    def __init__(self) -> None:
        self._at = 0
        self._strategy: Strategy | None = None

    def known(self, labels: int) -> Strategy | None:
        return self._strategy if self._at <= labels <= MORE_LABELS * self._at else None

    def remember(self, labels: int, strategy: Strategy) -> None:
        if strategy is not self._strategy:
            self._at, self._strategy = labels, strategy


def _snapshot(workspace: Workspace) -> Snapshot:
    snapshot = workspace.snapshot()
    if snapshot is None:
        error = workspace.background.errors.get("images")
        raise RequestRefused(503, "not_ready", error or "features are being extracted", retry_after=1)
    return snapshot


def _queue(queue: Queue) -> dict[str, Any]:
    return {
        "images": [_suggestion(row, queue.suggestions.get(row)) for row in queue.rows],
        "reason": queue.strategy.reason,
        "why": queue.strategy.why,
        "labelled": queue.labelled,
        "waiting": queue.waiting,
        "duplicates": queue.duplicates,
    }


def _suggestion(row: int, suggestion: Suggestion | None) -> dict[str, Any]:
    if suggestion is None:
        return {"id": row, "suggested": None, "confidence": None}
    return {"id": row, "suggested": suggestion.label, "confidence": suggestion.confidence}
