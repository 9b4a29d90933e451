"""Thaw fine-tunes a pre-trained CNN on your own labelled images.

    import thaw

    classifier = thaw.finetune("images/", thaw.Recipe(backbone="resnet50"))
    predictions = thaw.predict(classifier, ["photo.png"])
    thaw.save(classifier, "model/")
    classifier = thaw.load("model/")

Names are loaded on first use, so that `import thaw` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from thaw.version import __version__ as __version__

__all__ = [
    "Classifier",
    "Dataset",
    "Limits",
    "NullReporter",
    "Phase",
    "Recipe",
    "ThawError",
    "compare",
    "cross_validate",
    "decide",
    "evaluate",
    "explain",
    "export",
    "finetune",
    "inspect",
    "label",
    "load",
    "plan",
    "predict",
    "push",
    "quantise",
    "report",
    "save",
    "search",
    "update",
]

_TYPES = {
    "Classifier": "thaw.classifier.classifier",
    "Dataset": "thaw.data.dataset",
    "Limits": "thaw.tuning.limits",
    "NullReporter": "thaw.progress",
    "Phase": "thaw.recipe",
    "Recipe": "thaw.recipe",
    "ThawError": "thaw.errors",
}

if TYPE_CHECKING:
    from thaw.classifier.classifier import Classifier
    from thaw.data.dataset import Dataset
    from thaw.errors import ThawError
    from thaw.pipeline import (
        compare,
        cross_validate,
        decide,
        evaluate,
        explain,
        export,
        finetune,
        inspect,
        label,
        load,
        plan,
        predict,
        push,
        quantise,
        report,
        save,
        search,
        update,
    )
    from thaw.progress import NullReporter
    from thaw.recipe import Phase, Recipe
    from thaw.tuning.limits import Limits


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'thaw' has no attribute {name!r}")
    # A submodule of the same name, such as `thaw.cross_validate`, is no substitute for the function.
    found = getattr(import_module(_TYPES.get(name, "thaw.pipeline")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
