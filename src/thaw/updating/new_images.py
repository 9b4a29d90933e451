"""The new images of an update: read, compared with those of the run, decoded and split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from thaw.cache import cache_folder
from thaw.cores import worker_count
from thaw.data.capture import NO_CAPTURE
from thaw.data.dataset import Dataset, mirrored_images
from thaw.data.decoding import Decoding
from thaw.data.digests import digest_files, memory_of
from thaw.data.duplicates import near_duplicates
from thaw.data.group_split import assign_groups
from thaw.data.groups import Grouped, find_groups, group_images, without_groups
from thaw.data.layouts import DEFAULTS, applicable
from thaw.data.leaks import conflicting_labels, leaks
from thaw.data.manifest import SCHEMA, Manifest
from thaw.data.pixel_store import PixelStore
from thaw.data.split import SplitResult
from thaw.errors import DataError
from thaw.formats import count, listed
from thaw.progress import Reporter
from thaw.recipe import SplitSettings, Task
from thaw.updating.stored_run import StoredRun


@dataclass(frozen=True)
class NewImages:
    """The new images, and what becomes of the data set with them.

    Attributes:
        manifest: The images of the run, then the new ones, with their splits; the run's classes, then the new ones.
        first: The row of the first new image.
        pixels: The decoded new images.
        duplicates: Pairs of rows of the manifest that are near-duplicates, at least those with a new image.
    """

    manifest: Manifest
    first: int
    pixels: PixelStore
    duplicates: tuple[tuple[int, int], ...]

    def rows(self, split: str) -> np.ndarray:
        """Readable new rows of a split, counted from the first new one."""
        rows = self.manifest.indices(split)
        return rows[rows >= self.first] - self.first


def open_new(run: StoredRun, data: str | Path | Dataset, reporter: Reporter) -> Dataset:
    """The new images as a data set with the classes of the run, then the new ones.

    Raises:
        DataError: They cannot be used, or their labels do not fit the task.
    """
    task, classes = run.manifest.task, run.manifest.classes
    # Two classes may become three.
    wanted: Task = "multilabel" if task == "multilabel" else "multiclass"
    if isinstance(data, Dataset):
        dataset = data
    else:
        place, folders = mirrored_images(data, reporter.bar), run.recipe.folders
        if folders != DEFAULTS:
            folders = applicable(folders, place)
        dataset = Dataset.open(place, wanted, classes, folders, reporter.bar)
    for note in dataset.notes:
        reporter.say(note)
    found = (*classes, *(name for name in dataset.classes if name not in classes))
    new = found[len(classes) :]
    if new and task == "multilabel":
        raise DataError(
            f"{dataset.manifest.root}: {listed(new)} {'is a new class' if len(new) == 1 else 'are new classes'}, and "
            "with several labels per image nobody has said which old images show it; label those, and train a new run"
        )
    becomes = task if not new else wanted
    return replace(dataset, manifest=replace(dataset.manifest, classes=found, task=becomes))


def prepare_new(run: StoredRun, dataset: Dataset, reporter: Reporter) -> NewImages:
    """Leave out what the run knows already, decode the rest, and give each image a split; old ones keep theirs.

    Raises:
        DataError: Nothing is left to learn, no image can be read, or a class has too few images.
    """
    manifest = _unknown_images(run, dataset.manifest, reporter)
    cache, workers, spec = cache_folder(), worker_count(), run.classifier.backbone.facts.pixels
    pixels = PixelStore.open_or_build(manifest, Decoding(spec, run.recipe.decode, workers), cache, reporter.bar)
    old = run.old_pixels()
    grouped = _grouped(run, old or [], pixels, manifest)
    joined = _joined(run.manifest, grouped.manifest)
    duplicates = _near_duplicates(run, old, pixels, reporter)
    split = _split(run, joined, manifest.root, duplicates)
    notes = (*pixels.notes(), *conflicting_labels(split.manifest), *grouped.notes, *split.notes)
    for note in notes:
        reporter.say(note)
    return NewImages(split.manifest, len(run.manifest), pixels, duplicates)


def _unknown_images(run: StoredRun, manifest: Manifest, reporter: Reporter) -> Manifest:
    """The images whose bytes are none of the run's; says how many were left out."""
    files = manifest.files()
    digests = digest_files(
        files, memory_of(manifest.root, cache_folder()), worker_count(), reporter.bar("check images")
    )
    columns = (run.manifest.column(name) for name in ("sha256", "labels", "path"))
    known = {digest: (labels, path) for digest, labels, path in zip(*columns, strict=True) if digest}
    places, labels = manifest.column("path"), manifest.column("labels")
    same = [row for row, digest in enumerate(digests) if digest in known]
    relabelled = [row for row in same if set(labels[row]) != set(known[digests[row]][0])]
    if same:
        images = count(len(same), "image")
        reporter.say(f"{images} of {len(files):,} left out: {run.folder.path} has learnt from equal files already")
    if relabelled:
        row = relabelled[0]
        earlier, path = known[digests[row]]
        reporter.say(
            f"conflicting labels: {count(len(relabelled), 'of these images', 'of these images')} with another label "
            f"there, the first is {places[row]} ({'|'.join(labels[row])}), there {path} ({'|'.join(earlier)}); an "
            "update changes no label: correct it, and train a new run"
        )
    if len(same) == len(files):
        raise DataError(f"{manifest.root}: there is nothing to learn: {run.folder.path} knows every image")
    left = sorted(set(range(len(files))) - set(same))
    return replace(manifest, table=manifest.table.take(left))


def _grouped(run: StoredRun, old: Sequence[PixelStore], pixels: PixelStore, manifest: Manifest) -> Grouped:
    """The new images with groups as the run has them; where these cannot be told, each image is its own group."""
    setting, described = run.recipe.split.group_by, pixels.describe(manifest)
    if setting == "found":
        grouped = Grouped(described.with_columns({"group": _found_groups(run, old, pixels, described)}))
    elif setting == "column":
        grouped = Grouped(described)
    else:
        try:
            return group_images(described, setting, pixels.captures())
        except DataError as error:
            # A regular expression that matches no path.
            return Grouped(without_groups(described), (f"{error}: each new image is its own group",))
    known, names = {*run.manifest.column("group")} - {None}, grouped.manifest.column("group")
    notes = []
    if alone := [path for path, name in zip(described.column("path"), names, strict=True) if known and not name]:
        notes.append(
            f"the groups of {run.folder.path} cannot be told for {len(alone):,} of {count(len(names), 'new image')}, "
            f"such as {alone[0]}: each of these is its own group, so images of one part may be in different splits; to "
            "keep them together, give the new images as a table with a column split"
        )
    if joined := sum(name in known for name in names):
        notes.append(f"new images of groups of {run.folder.path}, which go where their group is: {joined:,}")
    return replace(grouped, notes=tuple(notes))


def _found_groups(run: StoredRun, old: Sequence[PixelStore], pixels: PixelStore, new: Manifest) -> list[str | None]:
    """The group of each new image, found in the names or capture times of old and new images together.

    New images of a group of the run get its name, so they go where its images are. There are no groups where those that
    are found divide the old images otherwise than the run does.
    """
    groups, untold = run.manifest.column("group"), list[str | None]([None] * len(new))
    # Paths of earlier updates are absolute: of these the folders that the run itself has tell groups.
    paths = [Path(path) for path in run.manifest.column("path")]
    depth = max((len(path.parts) for path in paths if not path.is_absolute()), default=0)
    names = ["/".join(path.parts[-depth:]) if path.is_absolute() else path.as_posix() for path in paths]
    table = pa.concat_tables([run.manifest.table, new.table.cast(SCHEMA)]).combine_chunks()
    together = replace(new, table=table).with_columns(
        {"path": [*names, *new.column("path")], "split": [None] * len(table)}
    )
    captures = [capture for store in old for capture in store.captures()] or [NO_CAPTURE] * len(groups)
    searched = find_groups(together, [*captures, *pixels.captures()])
    if searched is None:
        return untold
    found, of_new = searched.names[: len(groups)], searched.names[len(groups) :]
    pairs = {(name, group) for name, group in zip(found, groups, strict=True) if group}
    found_names = {name for name, _ in pairs}
    if None in found_names or not len(pairs) == len(found_names) == len({group for _, group in pairs}):
        return untold
    # Images that the run has split one by one, because their class has too few groups, have none.
    known = {**dict.fromkeys(found), **dict(pairs)}
    return [known.get(name, name) for name in of_new]


def _joined(old: Manifest, new: Manifest) -> Manifest:
    """All rows; the paths of the new ones are absolute, as those of the old ones are relative to another folder."""
    absolute = new.with_columns({"path": [str(file.absolute()) for file in new.files()]})
    table = pa.concat_tables([old.table, absolute.table.cast(SCHEMA)]).combine_chunks()
    return replace(new, table=table, root=old.root, grouping=new.grouping or old.grouping)


def _near_duplicates(
    run: StoredRun, old: Sequence[PixelStore] | None, pixels: PixelStore, reporter: Reporter
) -> tuple[tuple[int, int], ...]:
    """Pairs of near-duplicates, also with old images where the cache still has their pixels."""
    first, workers, bar = len(run.manifest), worker_count(), reporter.bar("find near-duplicates")
    if old is None:
        reporter.say(
            "near-duplicates of old images are not found, because the cache no longer has the pixels of these; equal "
            "files are"
        )
        return tuple((first + pair.first, first + pair.second) for pair in pixels.duplicates(workers, bar))
    parts = [*old, pixels]
    heights = [store.sizes[:, 0] for store in parts]
    place = [(store, row) for store, own in zip(parts, heights, strict=True) for row in range(len(own))]
    readable = np.flatnonzero(np.concatenate(heights)).tolist()

    def read(index: int) -> np.ndarray:
        store, row = place[index]
        return store.read(row)

    return tuple((pair.first, pair.second) for pair in near_duplicates(read, readable, workers, bar))


def _split(run: StoredRun, joined: Manifest, root: Path, duplicates: Sequence[tuple[int, int]]) -> SplitResult:
    """Every image in its split: old ones as they were, new ones as their data say, or by the fractions of the run.

    Errors name `root`, the folder of the new images.
    """
    first, old = len(run.manifest), run.manifest.column("split")
    status = joined.column("status")[first:]
    given = [
        split if found == "ok" else None for split, found in zip(joined.column("split")[first:], status, strict=True)
    ]
    if any(given):
        found = joined.with_columns({"split": [*old, *given]})
        _check_given(run, replace(found, root=root), given)
        notes = tuple(leaks(found, duplicates))
    else:
        assigned = _assigned(run, replace(joined, root=root), duplicates)
        columns = {name: assigned.manifest.column(name)[first:] for name in ("split", "group")}
        groups = [*run.manifest.column("group"), *columns["group"]]
        found = joined.with_columns({"split": [*old, *columns["split"]], "group": groups})
        notes = assigned.notes
    return SplitResult(found, notes)


def _assigned(run: StoredRun, joined: Manifest, duplicates: Sequence[tuple[int, int]]) -> SplitResult:
    """The split that new images get when they are added: units with old images go where these are."""
    has_test = len(run.manifest.indices("test")) > 0
    settings: SplitSettings = run.recipe.split
    if not has_test:
        settings = settings.model_copy(update={"test": 0.0})
    # Other classes have no image to split, and may have had too few before.
    labels, first = joined.column("labels"), len(run.manifest)
    concerned = {name for names in labels[first:] for name in names}
    classes = tuple(name for name in joined.classes if name in concerned)
    undivided = replace(joined.with_columns({"split": [None] * len(joined)}), classes=classes)
    return assign_groups(undivided, settings, run.manifest, duplicates, has_settings=False)


def _check_given(run: StoredRun, manifest: Manifest, given: Sequence[str | None]) -> None:
    """Raise `DataError` where a new class lacks a split, or nothing is left to train on."""
    counts, known = manifest.counts(), run.manifest.classes
    for name in manifest.classes[len(known) :]:
        if absent := [split for split in ("train", "val") if not counts[name][split]]:
            raise DataError(
                f"{manifest.root}: the new class {name} has no image in {listed(absent)}; add one there, or give the "
                "new images without splits, and they are divided"
            )
    if "train" not in given:
        raise DataError(f"{manifest.root}: none of the new images is in train, so there is nothing to learn")
