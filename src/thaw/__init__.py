"""Thaw fine-tunes a pre-trained CNN on your own labelled images.

    import thaw

    dataset = thaw.Dataset.from_folder("images/")
    classifier = thaw.finetune(dataset, thaw.Recipe(backbone="resnet50"))
    predictions = thaw.predict(classifier, ["photo.png"])
    thaw.save(classifier, "model/")
    classifier = thaw.load("model/")

Names are loaded on first use, so that `import thaw` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from thaw.version import __version__ as __version__

_HOMES = {
    "Classifier": "thaw.classifier.classifier",
    "Dataset": "thaw.data.dataset",
    "Inspection": "thaw.inspection.inspect",
    "Phase": "thaw.recipe",
    "Prediction": "thaw.prediction.predict",
    "Recipe": "thaw.recipe",
    "ThawError": "thaw.errors",
    "compare": "thaw.pipeline",
    "cross_validate": "thaw.pipeline",
    "decide": "thaw.pipeline",
    "evaluate": "thaw.pipeline",
    "finetune": "thaw.pipeline",
    "inspect": "thaw.pipeline",
    "load": "thaw.pipeline",
    "plan": "thaw.pipeline",
    "predict": "thaw.pipeline",
    "save": "thaw.pipeline",
}

__all__ = [
    "Classifier",
    "Dataset",
    "Inspection",
    "Phase",
    "Prediction",
    "Recipe",
    "ThawError",
    "compare",
    "cross_validate",
    "decide",
    "evaluate",
    "finetune",
    "inspect",
    "load",
    "plan",
    "predict",
    "save",
]

if TYPE_CHECKING:
    from thaw.classifier.classifier import Classifier
    from thaw.data.dataset import Dataset
    from thaw.errors import ThawError
    from thaw.inspection.inspect import Inspection
    from thaw.pipeline import compare, cross_validate, decide, evaluate, finetune, inspect, load, plan, predict, save
    from thaw.prediction.predict import Prediction
    from thaw.recipe import Phase, Recipe


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'thaw' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
