"""Which images to label next."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from thaw.backbones import build
from thaw.backbones.default import check_named, name_backbone
from thaw.cache import cache_folder
from thaw.device import keep_freed_memory
from thaw.errors import RecipeError
from thaw.formats import count
from thaw.labelling.folder import ImageFolder
from thaw.labelling.label import Extraction, make_queue
from thaw.labelling.queue import LabelQueue
from thaw.progress import Reporter
from thaw.recipe import Recipe
from thaw.terminal.console import ConsoleReporter
from thaw.writing import path_errors_explained


@path_errors_explained()
def label(
    images: str | Path | ImageFolder,
    labels: str | Path | None = None,
    number: int = 20,
    recipe: Recipe | None = None,
    reporter: Reporter | None = None,
) -> LabelQueue:
    """Decide which images to label next: typical ones at first, then those that a linear head is uncertain about.

    Near-duplicates of a labelled image are not asked for. Nothing is written but the cache; `LabelQueue.write` writes a
    table.

    Args:
        images: A folder of images, whose sub-folders mean nothing, or an `ImageFolder` with its labels.
        labels: A table with the columns path and label of those that have a label, or an export of an annotation tool;
            paths are relative to `images` or to the table.
        number: How many images to label next, at least 1.
        recipe: Its backbone, weights, image size, device, engine and seed are used.
        reporter: Shows progress; the console by default.

    Returns:
        The images in the order in which labelling helps most, with reasons and, once there are labels of two classes,
        suggestions; and an estimate of what more labels would give.

    Raises:
        DataError: If there is no readable image, or the labels cannot be used.
        RecipeError: If a setting or `number` is wrong.

    Example:
        >>> queue = thaw.label("images", number=5, recipe=thaw.Recipe.load("recipe.yaml"), reporter=thaw.NullReporter())
        >>> [image.reason for image in queue]
        ['typical', 'typical', 'typical', 'typical', 'typical']
        >>> queue.write("queue.csv")
    """
    keep_freed_memory()
    if number < 1:
        raise RecipeError(f"number: {number} is less than 1, the fewest images to label")
    requested = recipe or Recipe()
    check_named(requested, "compare images with")
    with closing(reporter or ConsoleReporter()) as shown:
        if not isinstance(images, ImageFolder):
            images = ImageFolder.open(Path(images), None if labels is None else Path(labels), shown.bar)
        requested, _ = name_backbone(requested, shown.say)
        backbone = build(requested)
        # Distances are about what is seen: the last stage, whatever a head would take.
        backbone.use_features("last")
        queue = make_queue(images, number, Extraction(requested, backbone, cache_folder(), shown.bar))
        for line in _lines(queue):
            shown.say(line)
        return queue


def _lines(queue: LabelQueue) -> list[str]:
    """What a queue is, for the user."""
    left_out = [
        *([f"{count(queue.duplicates, 'near-duplicate')} not asked for"] if queue.duplicates else []),
        *([f"{count(len(queue.errors), 'image')} with an error, at the end of the queue"] if queue.errors else []),
    ]
    counts = [f"{count(queue.labelled, 'image')} labelled", f"{queue.waiting:,} to choose from", *left_out]
    lines = [*queue.notes, ", ".join(counts)]
    if queue.images:
        lines.append(queue.strategy)
    else:
        lines.append("nothing to label: every image has a label, or is a near-duplicate of one that has")
    return [*lines, *([queue.outlook.sentence] if queue.outlook else [])]
