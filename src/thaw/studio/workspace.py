"""Everything that one Studio works with, opened together and closed together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw import atomic
from thaw.cache import cache_folder
from thaw.cores import worker_count
from thaw.errors import DataError, ResumeError
from thaw.formats import count, listed
from thaw.progress import Bar
from thaw.recipe import Recipe
from thaw.run_folder.lock import held
from thaw.studio.additions import Additions
from thaw.studio.background import Background
from thaw.studio.images import Images
from thaw.studio.journal import Journal
from thaw.studio.labels import Labels
from thaw.studio.project import Project, QueuedFiles
from thaw.studio.promotions import Promotions
from thaw.studio.table import labelled_paths
from thaw.studio.thumbnails import Thumbnails
from thaw.studio.training import Training
from thaw.studio.updates import Updates
from thaw.studio.uploads import Uploads
from thaw.studio.watching import Watching

if TYPE_CHECKING:
    from thaw.labelling.outlook import Outlook
    from thaw.studio.class_folders import Copied
    from thaw.studio.features import ImageFeatures, Snapshot
    from thaw.studio.piles import Pile

EXPORT = "export"
"""The action that is written down when an export is finished."""

COPY = "copy into class folders"
"""The action that is written down when the labelled images were copied."""

OUTLOOK = "outlook"
"""The action that is written down when it is estimated what more labels give."""

FIRST_SCREEN = 1.5
"""Seconds in which the first screen is shown: to import PyTorch meanwhile would hold it up by as many."""

MORE_LABELS = 1.1
"""Times as many labels as at the last estimate, from which there is another; one takes as long as twenty fits."""


class Workspace:
    """A project with its images, labels and whatever is computed from them.

    Attributes:
        actions: What was done besides labelling.
        additions: Takes images that are dropped in the browser.
        uploads: Files that are still arriving.
        promotions: Which classifier is in use.
        training: Starts and stops runs.
        updates: Lets runs learn the labels of now.
        watching: Classifies the images that arrive in a folder; `watchable` is one elsewhere that it may watch.
        is_stopping: Whether the server is being stopped, so that endless replies have to end.
        features: What is computed once; `None` until it is.
        computing: To be held by requests that compute, of which one at a time is as fast as several.
        outlook: What a hundred more labels would give, when it was last estimated; `None` until it is, and where
            nothing is left to label.
        copied: The latest copy of the labelled images in class folders.
        exports: What was exported, with its certificate.
        curve: For numbers of labels, what fraction of the predictions a hundred more would have changed, and their
            gain.
        piles: By the labels of the edit `piles_at`; `None` until they are first computed.
    """

    def __init__(self, project: Project, recipe: Recipe, bar: Bar, watchable: Path | None = None) -> None:
        """Open a project.

        Args:
            project: Its folder.
            recipe: How features are extracted, and where runs start from.
            bar: Opens a progress bar with a title.
            watchable: A folder elsewhere whose new images may be classified.

        Raises:
            DataError: The images or labels cannot be used, or another Studio has them open.
            WriteError: The project cannot be written.
        """
        self.project = project
        self.recipe = recipe
        self.images = Images.open(project, cache_folder(), bar)
        project.make()
        self._hold = ExitStack()
        try:
            self._hold.enter_context(held(project.path, "another Studio has this project open; close it first"))
        except ResumeError as error:
            raise DataError(str(error)) from error
        self.labels = Labels(self.images, project.labels)
        # Not before: the images may be unusable, and another Studio may have the project open.
        project.remember()
        self.actions = Journal(project.actions)
        self.promotions = Promotions(project.promotions)
        self.additions = Additions(project, self.images, self.labels)
        self.additions.is_stopping = lambda: self.is_stopping()
        self.uploads = Uploads(project.uploads)
        self.thumbnails = Thumbnails(self.images, project.thumbnails, recipe.decode)
        self.training = Training(project, recipe, self.actions, self._replaced)
        self.updates = Updates(project)
        self.training.waits_for = lambda: self.updates.is_running
        self.watching, self.watchable = Watching(), watchable
        self.is_stopping: Callable[[], bool] = lambda: False
        self.pool = ThreadPoolExecutor(worker_count(), "thaw-studio-images")
        self.background = Background()
        self.features: ImageFeatures | None = None
        self.piles: tuple[Pile, ...] | None = None
        self.piles_at = -1
        self.computing = threading.Lock()
        self.outlook: Outlook | None = None
        self.copied: Copied | None = None
        self._outlook_at = 0
        self.curve = [
            {"labels": line["labels"], "changes": line["changes"], "gain": line["gain"]}
            for line in self.actions.lines
            if line.get("action") == OUTLOOK
        ]
        self.exports = [dict(line) for line in self.actions.lines if line.get("action") == EXPORT]

    def start(self) -> None:
        """Begin with what takes longer than opening a page."""
        self.background.start(FIRST_SCREEN)
        self.training.run_queue()
        self.refresh_piles()

    def close(self) -> None:
        """Stop what is being computed, and close the files; training continues."""
        self.training.close()
        self.watching.stop()
        self.background.stop()
        self.pool.shutdown(cancel_futures=True)
        self.labels.close()
        self.actions.close()
        self.promotions.close()
        self._hold.close()

    def note(self, action: str, **facts: Any) -> None:
        """Write down that something was done."""
        when = datetime.now().astimezone().isoformat(timespec="milliseconds")
        self.actions.append([{"action": action, **facts, "when": when}])

    def snapshot(self) -> Snapshot | None:
        """The images with features and their labels of now; `None` until there are any."""
        if self.features is None:
            return None
        from thaw.studio.features import Snapshot

        marks = self.labels.marks()[: len(self.features.manifest)]
        return Snapshot(self.features, marks, self.labels.classes)

    def replaced(self, rows: Sequence[int]) -> str:
        """One sentence about those of some images whose files are not what was labelled; empty if there are none."""
        changed = self.images.changed({row: self.images.digests[row] for row in rows})
        if not changed:
            return ""
        problem = "replaced or removed while Studio is open; start Studio again"
        return f"{count(len(changed), 'labelled image')} {problem}: {listed(changed)}"

    def _replaced(self, files: QueuedFiles) -> str:
        """The same of the images of a run that waited, whose files may also have changed while Studio was closed."""
        rows = {path: self.images.row_of_file(path) for path in labelled_paths(files.table)}
        # Earlier releases did not write them down.
        labelled = atomic.read_checked(files.digests) or {}
        expected = {row: labelled.get(path, self.images.digests[row]) for path, row in rows.items() if row is not None}
        changed = self.images.changed(expected)
        changed += [path for path, row in rows.items() if row is None]
        if not changed:
            return ""
        problem = "replaced or removed while the run waited; check their labels and start it again"
        return f"{count(len(changed), 'labelled image')} {problem}: {listed(changed)}"

    def refresh_outlook(self, labels: int, waiting: int) -> None:
        """Estimate in the background what more labels give, if it may have changed.

        Args:
            labels: How many there are: with so many more than at the last estimate there is another.
            waiting: How many images could be asked for: without any there is nothing to estimate.
        """
        if not waiting or labels > MORE_LABELS * self._outlook_at:
            self._outlook_at = labels if waiting else 0
            self.background.submit("outlook", self._look_ahead)

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on the images and labels, for the user."""
        return (*self.images.notes, *self.labels.notes)

    def refresh_piles(self) -> None:
        """Compute the piles by the labels of now, in the background; before that, features of images without any."""
        self.background.submit("images", self._find_piles)

    def pile(self, name: str) -> Pile | None:
        """The pile of a name."""
        return next((pile for pile in self.piles or () if pile.name == name), None)

    def _extract(self) -> None:
        # It needs PyTorch, which the first screen does not wait for.
        from thaw.studio.features import extract_features

        self.features = extract_features(self.images, self.recipe, self.background.bar)

    def _look_ahead(self) -> None:
        from thaw.studio.label_queue import outlook

        self.background.bar("estimate what more labels would give")
        snapshot = self.snapshot()
        self.outlook = found = outlook(snapshot) if snapshot else None
        if snapshot and found and found.gain is not None:
            labels = sum(mark.label is not None for mark in snapshot.marks)
            point = {"labels": labels, "changes": found.changes, "gain": found.gain}
            self.note(OUTLOOK, **point)
            self.curve.append(point)

    def _find_piles(self) -> None:
        from thaw.studio.piles import find_piles

        if not len(self.images):
            return
        is_new = self.features is None or len(self.features.manifest) < len(self.images)
        if is_new:
            self._extract()
        at, snapshot = self.labels.changed, self.snapshot()
        if snapshot and (is_new or self.piles_at != at):
            self.background.bar("find near-duplicates, label errors and outliers")
            self.piles = find_piles(snapshot)
            self.piles_at = at


def selected(workspace: Workspace, show: str, split: str, text: str) -> Sequence[int]:
    """The rows that a filter leaves, in their order.

    Args:
        workspace: The project.
        show: `all`, `unlabelled`, `excluded`, `ambiguous`, `label:NAME` or `pile:NAME`.
        split: train, val or test; empty for all.
        text: What the path contains, in any case; empty for all.

    Raises:
        LookupError: There is no such filter.
    """
    marks, splits, paths = workspace.labels.marks(), workspace.images.splits, workspace.images.paths
    kind, _, name = show.partition(":")
    rows: Sequence[int] = range(len(marks))
    if kind == "unlabelled":
        rows = [row for row in rows if marks[row].label is None and not marks[row].excluded]
    elif kind == "excluded":
        rows = [row for row in rows if marks[row].excluded]
    elif kind == "ambiguous":
        rows = [row for row in rows if marks[row].ambiguous]
    elif kind == "label":
        rows = [row for row in rows if marks[row].label == name]
    elif kind == "pile":
        pile = workspace.pile(name)
        rows = pile.rows if pile else ()
    elif show != "all":
        raise LookupError("there is no such filter")
    wanted = text.casefold()
    return [
        row for row in rows if (not split or splits[row] == split) and (not wanted or wanted in paths[row].casefold())
    ]
