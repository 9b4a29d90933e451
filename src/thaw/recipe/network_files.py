"""The files that a recipe's networks are read from, for processes in other folders and on other machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from thaw.recipe.recipe import Recipe

_Recipe = TypeVar("_Recipe", bound=Recipe)


def with_absolute_files(recipe: _Recipe) -> _Recipe:
    """The recipe with absolute paths of its own files of weights, and of models of Keras."""
    changed = {
        "backbone": absolute_file(recipe.backbone),
        "weights": absolute_file(recipe.weights),
        "candidates": {absolute_file(name): absolute_file(weights) for name, weights in recipe.candidates.items()},
    }
    return recipe.model_copy(update=changed)


def absolute_file(value: str) -> str:
    """The absolute path of a file; what is none, such as `published` or the name of a network, as it is."""
    return str(Path(value).absolute()) if _is_file(value) else value


def files_of(networks: Mapping[str, str]) -> list[Path]:
    """The files that networks are read from, with the configuration that comes with weights.

    Args:
        networks: The weights of each, by its name.
    """
    files = [Path(value).absolute() for pair in networks.items() for value in pair if _is_file(value)]
    configurations = (file.with_name("config.json") for file in files)
    return sorted({*files, *filter(Path.is_file, configurations)})


def _is_file(value: str) -> bool:
    # All of these files have a suffix.
    return bool(Path(value).suffix) and Path(value).is_file()
