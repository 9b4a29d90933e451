"""A trained model: loaded, saved, run on images, exported, shared."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from thaw import atomic, hub
from thaw.bundle import certified_bundle, check_sums, files_of, write_bundle
from thaw.bundle_path import bundle_of
from thaw.classifier.classifier import Classifier
from thaw.device import keep_freed_memory
from thaw.errors import ExportError, RecipeError
from thaw.exports.export import Exported, export_bundle, export_int8
from thaw.marker import MARKER, mark
from thaw.prediction.predict import Prediction, predict_files
from thaw.remote import mirrored
from thaw.reports import model_card
from thaw.writing import check_new, path_errors_explained

Model = str | Path | Classifier


@path_errors_explained()
def load(model: Model) -> Classifier:
    """Load a trained classifier.

    Args:
        model: A finished run, a bundle, or `hub:OWNER/NAME`; a classifier is returned as it is.

    Returns:
        The classifier, in eval mode on the CPU.

    Raises:
        DataError: If there is no run or bundle at that path.
        BundleError: If the bundle is incomplete, was modified or does not reproduce its golden images.

    Example:
        >>> thaw.load("runs/train-1").classes
        ('ok', 'scratch', 'stain')
    """
    if isinstance(model, Classifier):
        return model
    keep_freed_memory()
    return certified_bundle(bundle_of(Path(model)))


@path_errors_explained()
def save(model: Model, folder: str | Path) -> None:
    """Save a classifier as a bundle, which `load` reads back.

    The bundle of a run is copied, with its golden images, model card and provenance; a classifier has none of these.

    Args:
        model: A run, a bundle or a classifier.
        folder: The folder to write; it must not exist.

    Raises:
        WriteError: If the folder already exists or cannot be written.
        BundleError: If the bundle is incomplete, was modified or does not reproduce its golden images.

    Example:
        >>> thaw.save("runs/train-1", "steel-model")
        >>> thaw.load("steel-model").task
        'multiclass'
    """
    if isinstance(model, Classifier):
        write_bundle(model, Path(folder))
        return
    check_new(Path(folder))
    bundle = bundle_of(Path(model))
    load(bundle)
    with atomic.new_folder(Path(folder)) as building:
        for file in files_of(bundle):
            (building / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / file, building / file)
        mark(building)
        check_sums(building)


@path_errors_explained()
def predict(model: Model, images: str | Path | Iterable[str | Path], batch_size: int = 32) -> list[Prediction]:
    """Classify image files.

    Args:
        model: A run, a bundle or a classifier.
        images: Image files, or one.
        batch_size: Images per forward pass, at least 1.

    Returns:
        One prediction per file, in order. A file that cannot be read has status "error" and the reason.

    Raises:
        DataError: If there is no run or bundle at that path.
        BundleError: If the bundle is incomplete, was modified or does not reproduce its golden images.
        RecipeError: If `batch_size` is wrong.

    Example:
        >>> (prediction,) = thaw.predict("runs/train-1", ["images/ok/000.png"])
        >>> prediction.status, len(prediction.probabilities)
        ('ok', 3)
    """
    if batch_size < 1:
        raise RecipeError(f"batch_size: {batch_size} is less than 1, the fewest images of a forward pass")
    files = [images] if isinstance(images, str | Path) else images
    return list(predict_files(load(model), [mirrored(path) for path in files], batch_size))


@path_errors_explained()
def export(
    model: Model, to: str, out: str | Path, int8_images: str | Path | None = None, max_drop: float | None = None
) -> Exported:
    """Export a classifier for another engine, and certify that it gives the same probabilities.

    Args:
        model: A run, a bundle or a classifier.
        to: onnx, openvino, torch, keras, litert or triton.
        out: The file (onnx, torch, keras, litert) or folder (openvino, triton) to write; it must not exist.
        int8_images: Labelled images to quantize to 8-bit integers with, at least 30; `None` exports in float32.
        max_drop: Accuracy that quantization may cost, in percentage points; `None` for 0.5.

    Returns:
        Where the export is, how large, and its certificate.

    Raises:
        ExportError: If a package is missing, the probabilities differ, or `max_drop` is given without images to
            quantize with; nothing is left then.
        WriteError: If the place is taken or cannot be written.

    Example:
        >>> thaw.export("runs/train-1", "torch", "steel.pt2").certificate.max_difference < 0.001
        True
    """
    if max_drop is not None and int8_images is None:
        raise ExportError(f"export --max-drop {max_drop:g}: is for int8; omit it, or add --int8 --images FOLDER")
    with _bundle_folder(model) as bundle:
        if int8_images is None:
            return export_bundle(bundle, to, Path(out))
        return export_int8(bundle, to, Path(out), Path(int8_images), 0.5 if max_drop is None else max_drop)


@path_errors_explained()
def push(model: Model, name: str, private: bool = True) -> str:
    """Upload a bundle to a model hub, after checking it on its golden images.

    Args:
        model: A run, a bundle or a classifier.
        name: `OWNER/NAME`; `hub:OWNER/NAME` then names the bundle wherever a model is expected.
        private: Whether a repository that does not exist yet is created as a private one.

    Returns:
        The address of the repository.

    Raises:
        BundleError: If the hub cannot be reached or refuses it.

    Example:
        >>> thaw.push("runs/train-1", "acme/steel")  # doctest: +SKIP
        'https://huggingface.co/acme/steel'
    """
    with _bundle_folder(model) as folder:
        classifier = certified_bundle(folder)
        card = folder / "MODEL_CARD.md"
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        files = [*files_of(folder), *([MARKER] if (folder / MARKER).is_file() else [])]
        return hub.push(folder, files, name, model_card.for_hub(classifier, text, name), private)


@contextmanager
def _bundle_folder(model: Model) -> Iterator[Path]:
    """The bundle of a model; a classifier is saved for as long as the block runs."""
    if not isinstance(model, Classifier):
        yield bundle_of(Path(model))
        return
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        write_bundle(model, folder)
        yield folder
