"""Networks of timm (PyTorch Image Models) as backbones; the only module that imports timm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thaw.backbones import starter
from thaw.backbones import weights as weight_files
from thaw.backbones.catalogue import resolve_name, suggest
from thaw.backbones.chain import chain_of
from thaw.backbones.contract import Backbone
from thaw.backbones.descriptions import MODEL_ARGS
from thaw.backbones.download import fetch
from thaw.backbones.facts import Facts, Pooling, per_channel
from thaw.backbones.int8 import with_int8_convolutions
from thaw.backbones.preprocessing import fill_colour, with_preprocessing
from thaw.data.geometry import PixelSpec
from thaw.errors import BackboneError, WeightsError
from thaw.formats import listed
from thaw.recipe import PreprocessingSettings
from thaw.torch_compiler import compiler_deferred

with compiler_deferred():
    import timm
    from timm.data import resolve_data_config

# Small enough to be fast, and not below the 75 pixels that Inception-v3 needs.
_TRIAL_SIZE = 96


def build(
    name: str,
    weights: str = "published",
    preprocessing: PreprocessingSettings | None = None,
    pooling: Pooling = "avg",
    seed: int = 0,
) -> Backbone:
    """Build a frozen backbone.

    Args:
        name: Name of the network.
        weights: `published` (bundled, cached or from the Hub), `random`, or a file.
        preprocessing: Overrides for the preprocessing that comes with the weights.
        pooling: How features are pooled.
        seed: Random weights depend only on it.

    Raises:
        BackboneError: The network is unknown.
        WeightsError: The weights are missing, unreachable or do not fit.
    """
    name = resolve_name(name)
    is_starter = name == starter.NAME
    name = starter.ARCHITECTURE if is_starter else name
    configuration = _configuration(name)
    if is_starter and weights == "published":
        network, facts = _from_file(name, configuration, starter.bundled_weights(), pooling, seed)
        facts = replace(
            facts,
            origin="Thaw's starter, bundled",
            preprocessing_origin="came with the weights",
            license=starter.LICENSE,
        )
    elif weights == "random":
        network = _create(name, pooling, {}, seed)
        facts = _facts(network, configuration, "random weights", f"timm's for {name}")
    elif weights == "published":
        network = _published(name, configuration, pooling, seed)
        facts = _facts(network, configuration, f"timm, {_source(configuration)}", "came with the weights")
    else:
        network, facts = _from_file(name, configuration, Path(weights), pooling, seed)
    if preprocessing is not None:
        facts = with_preprocessing(facts, preprocessing, "from the recipe")
    fixed = _fixed_size(configuration)
    if fixed and facts.pixels.size != fixed:
        raise BackboneError(f"backbone {name!r}: supports only images of {fixed} pixels, not {facts.pixels.size}")
    return Backbone(network, chain_of(network, fixed or _TRIAL_SIZE), facts, pooling)


def rebuild(facts: Facts, pooling: Pooling) -> Backbone:
    """Build the architecture that `facts` describe; the caller loads the weights.

    Raises:
        BackboneError: The installed version of timm does not have it, or its arguments are none that weights come with.
    """
    if unknown := sorted(set(facts.model_args) - set(MODEL_ARGS)):
        raise BackboneError(
            f"backbone {facts.architecture!r}: unknown model_args {listed(unknown)}; known are {', '.join(MODEL_ARGS)}"
        )
    configuration = _configuration(facts.architecture)
    network = _create(facts.architecture, pooling, facts.model_args, seed=0)
    if facts.int8:
        with_int8_convolutions(network)
    return Backbone(network, chain_of(network, _fixed_size(configuration) or _TRIAL_SIZE), facts, pooling)


def _configuration(name: str) -> dict[str, Any]:
    """timm's configuration of the pre-trained weights of a name."""
    try:
        configuration = timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise BackboneError(f"backbone {name!r}: {error}") from error
    if configuration is None:
        raise BackboneError(f"backbone {name!r}: no such network; {suggest(name, timm.list_models())}")
    return {**configuration.to_dict(), "architecture": name.partition(".")[0]}


def _source(configuration: Mapping[str, Any]) -> str:
    """Hub repository or URL of the published weights; empty if there are none."""
    return str(configuration.get("hf_hub_id") or configuration.get("url") or "")


def _create(
    name: str, pooling: Pooling, model_args: Mapping[str, Any], seed: int, weights: Path | None = None
) -> nn.Module:
    overlay = {"file": str(weights)} if weights else None
    with torch.random.fork_rng(devices=[]):
        # `torch.manual_seed` would also seed the GPUs, whose state `fork_rng(devices=[])` does not restore.
        torch.default_generator.manual_seed(seed)
        try:
            return timm.create_model(
                name,
                pretrained=weights is not None,
                pretrained_cfg_overlay=overlay,
                num_classes=0,
                global_pool=pooling,
                **model_args,
            ).eval()
        except (TypeError, ValueError, KeyError, AssertionError) as error:
            arguments = {"pooling": pooling, **model_args}
            raise BackboneError(f"backbone {name!r}: cannot be built with {arguments}: {error}") from error


def _published(name: str, configuration: Mapping[str, Any], pooling: Pooling, seed: int) -> nn.Module:
    source = _source(configuration)
    if not source:
        raise WeightsError(f"there are no published weights of {name}; pass --weights FILE or --weights random")
    file = fetch(source)
    try:
        network = _create(name, pooling, {}, seed, weights=file)
    # Readers raise arbitrary exceptions on damaged data; any exception here is about this file.
    except Exception as error:
        raise WeightsError(
            f"{file}: the cached weights of {name} cannot be loaded; delete the file ({type(error).__name__}: {error})"
        ) from error
    weight_files.check_finite(network.state_dict(), str(file))
    return network


def _from_file(
    name: str, configuration: Mapping[str, Any], file: Path, pooling: Pooling, seed: int
) -> tuple[nn.Module, Facts]:
    loaded = weight_files.load_file(file)
    architecture = configuration["architecture"]
    if loaded.architecture not in ("", architecture):
        raise WeightsError(
            f"{loaded.architecture_from}: describes weights of {loaded.architecture}, not of {architecture}; "
            f"add --backbone {loaded.architecture}"
        )
    network = _create(name, pooling, loaded.model_args, seed)
    if loaded.int8:
        with_int8_convolutions(network)
    weight_files.fit_into(network, loaded, _classifiers(configuration))
    facts = _facts(
        network,
        configuration,
        f"{file.name}, sha256 {loaded.sha256[:12]}",
        f"timm's for {name}" + ("" if loaded.preprocessing_from else f"; {file.name} contains none"),
        loaded.model_args,
        loaded.int8,
    )
    sources = " and ".join(source.name for source in loaded.preprocessing_from)
    return network, with_preprocessing(facts, loaded.preprocessing, f"from {sources}")


def _facts(
    network: nn.Module,
    configuration: Mapping[str, Any],
    origin: str,
    preprocessing_origin: str,
    model_args: Mapping[str, Any] | None = None,
    int8: bool = False,
) -> Facts:
    data = resolve_data_config({}, pretrained_cfg=dict(configuration))
    return Facts(
        architecture=configuration["architecture"],
        pixels=PixelSpec(
            size=int(data["input_size"][-1]),
            crop_pct=float(data["crop_pct"]),
            crop_mode=data["crop_mode"],
            interpolation=data["interpolation"],
            fill=fill_colour(data["mean"]),
        ),
        mean=per_channel(data["mean"]),
        std=per_channel(data["std"]),
        width=int(network.head_hidden_size),  # type: ignore[arg-type]
        classifier_name=_classifiers(configuration)[0],
        license=str(configuration.get("license") or "not stated"),
        origin=origin,
        preprocessing_origin=preprocessing_origin,
        model_args=dict(model_args or {}),
        int8=int8,
    )


def _classifiers(configuration: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the last layer, or layers, of the architecture."""
    names = configuration.get("classifier") or "classifier"
    return (names,) if isinstance(names, str) else tuple(names)


def _fixed_size(configuration: Mapping[str, Any]) -> int | None:
    """The only image size that a network supports, if there is such a limit."""
    return int(configuration["input_size"][-1]) if configuration.get("fixed_input_size") else None
