"""Routes of the screen Mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.responses import Response

from thaw.run_folder import RunFolder
from thaw.studio import messages
from thaw.studio.training_routes import finished_run
from thaw.studio.workspace import Workspace
from thaw.web.limits import RequestRefused

if TYPE_CHECKING:
    from thaw.studio.influence import RunInfluence

_INFLUENTIAL = 6
"""Training images that are shown behind a prediction."""
_KEPT = {"Cache-Control": "private, max-age=3600"}


def router(workspace: Workspace) -> APIRouter:
    """The routes of a workspace; they need PyTorch, which the first screen does not wait for."""
    routes = APIRouter()

    @routes.get("/api/mistakes/{name}")
    def mistakes(name: str) -> dict[str, Any]:
        from thaw.studio.mistakes import MAX_CONFUSIONS, MAX_MATRIX_CLASSES, read_predictions

        found = read_predictions(finished_run(workspace, name), workspace.images)
        has_matrix, confusions = len(found.classes) <= MAX_MATRIX_CLASSES, found.confusions()
        return {
            "run": name,
            "classes": found.classes,
            "confusion": found.confusion().tolist() if has_matrix else None,
            "confusions": confusions[:MAX_CONFUSIONS],
            "all_confusions": len(confusions),
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
                content = draw(run, workspace.images.read(row), label)
        except LookupError as error:
            raise RequestRefused(404, "not_found", str(error)) from error
        return Response(content, media_type="image/png", headers=_KEPT)

    influences = _Influences(workspace)

    @routes.post("/api/influence/{name}")
    def compute(name: str) -> dict[str, Any]:
        influences.compute(finished_run(workspace, name))
        return {"state": influences.state(name)}

    @routes.get("/api/influence/{name}/{image}")
    def influential(name: str, image: str, label: str) -> dict[str, Any]:
        row, found = messages.row_number(workspace, image), influences.of(name)
        if found is None:
            return {"state": influences.state(name), "ids": [], "agreement": None, "label": ""}
        with workspace.computing:
            most = found.of(row, label, _INFLUENTIAL)
        ids, predicted = (most.rows, most.label) if most else ((), "")
        return {"state": "ready", "ids": ids, "agreement": found.agreement, "label": predicted}

    return routes


class _Influences:
    """What the predictions of one run come from, computed in the background once it is asked for."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._name = ""
        self._found: RunInfluence | None = None

    def compute(self, run: RunFolder) -> None:
        """Begin to compute it for a run, unless that was done or is being done."""
        if self._name != run.path.name:
            self._name, self._found = run.path.name, None
            self._workspace.background.submit("influence", lambda: self._compute(run))

    def of(self, name: str) -> RunInfluence | None:
        """What was computed for a run; `None` until it is."""
        return self._found if self._name == name else None

    def state(self, name: str) -> str:
        """`none`, `computing` or `ready`."""
        return "none" if self._name != name else "ready" if self._found else "computing"

    def _compute(self, run: RunFolder) -> None:
        from thaw.studio.influence import run_influence

        if self._name != run.path.name:
            return
        try:
            found = run_influence(run, self._workspace.images, self._workspace.background.bar)
        except Exception:
            # What went wrong is among the errors of the background; it can be asked for again.
            self._name = ""
            raise
        if self._name == run.path.name:
            self._found = found
