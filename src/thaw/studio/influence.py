"""Which training images the predictions of a run come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.bundle import certified_bundle
from thaw.cache import cache_folder
from thaw.data.manifest import Manifest
from thaw.errors import DataError
from thaw.evaluation.influence import InfluenceHead, most_similar
from thaw.evaluation.records import read_records
from thaw.labelling.label import Extraction
from thaw.progress import Bar
from thaw.run_folder import RunFolder
from thaw.studio.images import Images


@dataclass(frozen=True)
class Influential:
    """Training images behind one prediction.

    Attributes:
        rows: Of the project, the most influential image first; each makes the predicted class more likely.
        label: The class that the head predicts, which need not be the one that the run does.
    """

    rows: tuple[int, ...]
    label: str


@dataclass(frozen=True)
class RunInfluence:
    """A linear head that predicts like a run, with features of all its images.

    Attributes:
        classes: Of the run.
        head: Fitted to the training images.
        train_rows: (N,) int, their rows in the project.
        features: (M, D) of the images that the run was evaluated on.
        position: By row of the project, the place of an image in `features`.
        agreement: Fraction of these images to which head and run give the same label.
    """

    classes: tuple[str, ...]
    head: InfluenceHead
    train_rows: np.ndarray
    features: np.ndarray
    position: dict[int, int]
    agreement: float

    def of(self, row: int, label: str, number: int) -> Influential | None:
        """The training images with the most influence on the logit of a class for an image; `None` if it has none.

        Args:
            row: An image that the run was evaluated on.
            label: A class of the run.
            number: How many images are wanted; only those are given that make the class more likely.
        """
        place = self.position.get(row)
        if place is None or label not in self.classes or not self.head.present[self.classes.index(label)]:
            return None
        features = self.features[place]
        found = self.head.influences(features, self.classes.index(label))
        best = [index for index in np.argsort(-found, kind="stable")[:number] if found[index] > 0]
        predicted = int(self.head.probabilities(features[None])[0].argmax())
        return Influential(tuple(self.train_rows[best].tolist()), self.classes[predicted])


def run_influence(run: RunFolder, images: Images, bar: Bar) -> RunInfluence:
    """Extract the features that the final network of a run gives, from the cache where they are, and fit a head.

    Images that are no longer in the project, or whose files were replaced, are left out.

    Args:
        run: A finished run.
        images: Those of the project.
        bar: Opens a progress bar with a title.

    Raises:
        DataError: Of fewer than two classes training images are left, or none that it was evaluated on.
        WriteError: The disk is full.
    """
    # Not the one that draws evidence meanwhile, whose hooks would see these images.
    manifest, recipe, classifier = Manifest.read(run.manifest), run.read_recipe(), certified_bundle(run.model)
    known, paths, names = images.rows_of(manifest), manifest.column("path"), manifest.column("labels")
    splits = [split for split in ("val", "test") if len(manifest.indices(split))]
    train = np.array([row for row in manifest.indices("train") if paths[row] in known], int)
    labels = [names[row][0] for row in train]
    if len(set(labels)) < 2:
        raise DataError(f"{run.path.name}: of fewer than two classes training images are still in the project")
    by_path = {path: row for row, path in enumerate(paths)}
    evaluated, probabilities = [], []
    for split in splits:
        records = read_records(run.predictions, split)
        for path, of_image in zip(records.paths, records.scored.probabilities, strict=True):
            if path in known:
                evaluated.append(by_path[path])
                probabilities.append(of_image)
    if not evaluated:
        raise DataError(f"{run.path.name}: none of the images that it was evaluated on is still in the project")
    extraction = Extraction(recipe, classifier.backbone, cache_folder(), bar)
    rows = np.concatenate([train, np.array(evaluated, int)])
    features = extraction.extract(extraction.decode(manifest), rows)
    bar("find the training images behind each prediction")
    classes = np.array([classifier.classes.index(label) for label in labels])
    given, tested = np.array(probabilities), features[len(train) :]
    head = most_similar(features[: len(train)], classes, tested, given)
    agreement = float((head.probabilities(tested).argmax(axis=1) == given.argmax(axis=1)).mean())
    position = {known[paths[row]]: place for place, row in enumerate(evaluated)}
    train_rows = np.array([known[paths[row]] for row in train])
    return RunInfluence(classifier.classes, head, train_rows, tested, position, agreement)
