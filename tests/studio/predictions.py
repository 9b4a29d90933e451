"""Predictions of runs that would take long to train."""

from thaw.studio.mistakes import PredictedImage, RunPredictions


def of_many_classes(classes: int, errors: int) -> RunPredictions:
    """Predictions for the images of the project by a run of more classes than it has."""
    pairs = [(1, 0), (1, 0), *((index % classes, (index + 1) % classes) for index in range(errors - 2)), (3, 3)]
    images = [PredictedImage(index % 36, "val", *pair, 0.9, 0.1, ()) for index, pair in enumerate(pairs)]
    return RunPredictions(tuple(f"class {index}" for index in range(classes)), tuple(images), 0)
