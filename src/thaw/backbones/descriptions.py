"""What files say about weights: the metadata of a safetensors file, and the `config.json` next to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from thaw.errors import WeightsError
from thaw.formats import listed
from thaw.recipe import PreprocessingSettings

MODEL_ARGS = ("pad_type", "bn_eps", "act_layer", "output_stride")
"""Arguments of an architecture that weights and bundles may come with; no other reaches timm."""
_REPLACED_ARGS = ("global_pool", "num_classes", "in_chans", "drop_rate", "drop_path_rate")
_PREPROCESSING = ("crop_pct", "crop_mode", "interpolation", "mean", "std")


@dataclass(frozen=True)
class Description:
    """What a file says about weights.

    Attributes:
        file: The file.
        where: How errors name it.
        values: What it says, by the names of timm.
    """

    file: Path
    where: str
    values: Mapping[str, Any]


def read_config(file: Path) -> Description:
    """What a `config.json` next to weights says, nothing where there is none; raises `WeightsError`."""
    where = f"{file}, read because it is next to the weights"
    if not file.is_file():
        return Description(file, where, {})
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{where}: cannot be read as JSON: {error}") from error
    return Description(file, where, content if isinstance(content, dict) else {})


def model_args_of(config: Description, own: Description) -> dict[str, Any]:
    """Arguments of the architecture; other keys of the metadata are ignored, other arguments are a `WeightsError`."""
    given: dict[str, Any] = {}
    for source in (config, own):
        args = source.values.get("model_args") or {}
        if not isinstance(args, dict):
            raise WeightsError(f"{source.where}: model_args must be a mapping, not {args!r}")
        unknown = [name for name in args if name not in (*MODEL_ARGS, *_REPLACED_ARGS)]
        if unknown:
            raise WeightsError(
                f"{source.where}: unknown model_args {listed(unknown)}; known are {', '.join(MODEL_ARGS)}"
            )
        given |= args
    given |= {name: own.values[name] for name in MODEL_ARGS if name in own.values}
    return {name: value for name, value in given.items() if name in MODEL_ARGS}


def preprocessing_of(config: Description, own: Description) -> tuple[PreprocessingSettings, tuple[Path, ...]]:
    """Preprocessing, and the files that give it; raises `WeightsError` where it is none that a recipe can have.

    Older Hub files have it at the top level of `config.json`.
    """
    given: dict[str, Any] = {}
    sources: dict[str, Description] = {}
    nested = config.values.get("pretrained_cfg")
    for source in (replace(config, values=nested) if isinstance(nested, dict) else config, own):
        found = {key: source.values[key] for key in _PREPROCESSING if source.values.get(key) is not None}
        if (size := source.values.get("input_size")) is not None:
            found["image_size"] = size[-1] if isinstance(size, list) and size else size
        given |= found
        sources |= dict.fromkeys(found, source)
    try:
        settings = PreprocessingSettings.model_validate(given)
    except ValidationError as error:
        wrong = [(str(detail["loc"][0]), detail["msg"]) for detail in error.errors()]
        where = sources[wrong[0][0]].where
        of_file = ", ".join(f"{name} ({problem})" for name, problem in wrong if sources[name].where == where)
        raise WeightsError(f"{where}: contains invalid preprocessing: {of_file}") from error
    return settings, tuple(dict.fromkeys(source.file for source in sources.values()))
