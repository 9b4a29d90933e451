"""Routes of the screen Try."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from fastapi import APIRouter, Request

from thaw.run_folder import RunFolder
from thaw.studio.training_routes import finished_run
from thaw.studio.workspace import Workspace

_CLASSES = 8
"""Of which the probability is shown, the most likely ones."""


def router(workspace: Workspace) -> APIRouter:
    """The routes of a workspace."""
    routes = APIRouter()

    def classified(run: RunFolder, data: bytes) -> dict[str, Any]:
        from thaw.studio.run_classifier import classify

        with workspace.computing:
            tried = classify(run, data)
        named = zip(tried.classes, tried.prediction.probabilities, strict=True)
        likely = sorted(named, key=lambda item: -item[1])[:_CLASSES]
        return {
            "label": ", ".join(tried.prediction.labels),
            "confidence": tried.prediction.confidence,
            "review": tried.prediction.review,
            "probabilities": [{"name": name, "probability": probability} for name, probability in likely],
            "view": _data_url(tried.view),
            "evidence": _data_url(tried.evidence),
        }

    @routes.post("/api/try/{name}")
    async def try_image(name: str, request: Request) -> dict[str, Any]:
        run, data = finished_run(workspace, name), await request.body()
        return await asyncio.to_thread(classified, run, data)

    return routes


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}" if png else ""
