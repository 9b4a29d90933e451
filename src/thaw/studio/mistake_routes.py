"""Routes of the screen Mistakes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from thaw.studio import messages
from thaw.studio.training_routes import finished_run
from thaw.studio.workspace import Workspace
from thaw.web.limits import RequestRefused

_KEPT = {"Cache-Control": "private, max-age=3600"}


def router(workspace: Workspace) -> APIRouter:
    """The routes of a workspace; they need PyTorch, which the first screen does not wait for."""
    routes = APIRouter()

    @routes.get("/api/mistakes/{name}")
    def mistakes(name: str) -> dict[str, Any]:
        from thaw.studio.mistakes import read_predictions

        found = read_predictions(finished_run(workspace, name), workspace.images)
        return {
            "run": name,
            "classes": found.classes,
            "confusion": found.confusion().tolist(),
            "missing": found.missing,
            "images": [
                {
                    "id": image.row,
                    "split": image.split,
                    "truth": image.truth,
                    "predicted": image.predicted,
                    "confidence": round(image.confidence, 4),
                    "of_truth": round(image.of_truth, 4),
                    "nearest": image.nearest,
                }
                for image in found.images
            ],
        }

    @routes.get("/evidence/{name}/{image}")
    def evidence(name: str, image: str, label: str) -> Response:
        from thaw.studio.run_classifier import evidence as draw

        run, row = finished_run(workspace, name), messages.row_number(workspace, image)
        try:
            with workspace.computing:
                content = draw(run, workspace.images.manifest.file(row), label)
        except LookupError as error:
            raise RequestRefused(404, "not_found", str(error)) from error
        return Response(content, media_type="image/png", headers=_KEPT)

    return routes
