"""A pre-trained network prepared for training: in int8."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from thaw.backbones.default import name_backbone
from thaw.device import keep_freed_memory
from thaw.formats import command
from thaw.pipeline.training import Data, opened
from thaw.progress import Reporter
from thaw.quantisation import Quantised, quantise_backbone
from thaw.recipe import Recipe
from thaw.terminal.console import ConsoleReporter
from thaw.writing import check_new_weights, path_errors_explained


@path_errors_explained()
def quantise(data: Data, out: str | Path, recipe: Recipe | None = None, reporter: Reporter | None = None) -> Quantised:
    """Write a pre-trained network in int8 as a weights file, calibrated on labelled images.

    A classifier that is trained with these weights runs its convolutions in 8-bit integers on CPUs, in training and
    wherever its bundle is used, and only its head trains.

    Args:
        data: Labelled images: a folder or table, here or at an address such as s3://bucket/images, or a `Dataset`. Of
            a part of the training images the ranges of activations are measured; labels are used for a comparison only.
        out: The .safetensors file to write; it must not exist.
        recipe: Of its settings, `task`, `folders`, `decode`, `split`, `backbone`, `weights`, `preprocessing` and `seed`
            are used.
        reporter: Shows progress; the console by default.

    Returns:
        The file, and speed and accuracy of a linear head before and after.

    Raises:
        BackboneError: If the network cannot run in int8, or does already.
        DataError: If the images or labels cannot be used.
        WriteError: If `out` already exists or cannot be written.

    Example:
        >>> recipe, quiet = thaw.Recipe(backbone="starter"), thaw.NullReporter()
        >>> found = thaw.quantise("images", "starter-int8.safetensors", recipe, quiet)
        >>> found.file.name, found.speedup > 0
        ('starter-int8.safetensors', True)
    """
    keep_freed_memory()
    requested, file = recipe or Recipe(), Path(out)
    check_new_weights(file)
    with closing(reporter or ConsoleReporter()) as shown:
        dataset = opened(data, requested, shown)
        named, _ = name_backbone(requested, shown.say)
        found = quantise_backbone(dataset, named, file, shown)
        shown.say(f"{file}: {found.describe()}")
        if found.speedup > 1.0:
            trains = command("thaw", "train", "DATA", "--backbone", named.backbone, "--weights", file)
            shown.say(f"train with it: {trains}")
        else:
            shown.say("it is not faster here: train with the weights in float")
        return found
