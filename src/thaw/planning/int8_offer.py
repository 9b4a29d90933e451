"""What a frozen part in int8 would gain, measured where extracting features takes minutes."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from thaw.backbones.contract import Backbone
from thaw.backbones.int8 import can_be_quantised, quantise
from thaw.features.engines import INT8, missing
from thaw.features.probe import EngineChoice, ExtractionJob, choose_engine

OFFER_FROM = 120.0
"""Seconds of extraction from which int8 is measured, which takes about four."""

LEAST_SPEEDUP = 1.5

_CALIBRATION = 8
"""Images that are enough to measure the speed with, which does not depend on the ranges."""


def with_int8_offer(chosen: EngineChoice, job: ExtractionJob, cache: Path) -> EngineChoice:
    """The choice of an engine, whose reason tells how much faster int8 is where that is much.

    Args:
        chosen: The engine, with its speed.
        job: What it was chosen for.
        cache: Folder in which choices of engines are remembered.
    """
    if job.device.type != "cpu" or not can_be_quantised(job.backbone) or missing(INT8, job.device):
        return chosen
    try:
        rate = choose_engine(replace(job, backbone=_in_int8(job)), "auto", cache).images_per_second
    # Engines fail in ways of their own on a network that they do not support; then there is nothing to offer.
    except Exception:
        return chosen
    if rate < LEAST_SPEEDUP * chosen.images_per_second:
        return chosen
    faster = f"in int8 {rate:.0f}/s, {rate / chosen.images_per_second:.1f}x"
    return replace(chosen, reason=f"{chosen.reason}; {faster}, for a head alone: `thaw quantise`")


def _in_int8(job: ExtractionJob) -> Backbone:
    """A copy of the network, calibrated on a few images."""
    backbone = copy.deepcopy(job.backbone)
    quantise(backbone, [job.pixels[:_CALIBRATION]])
    return backbone
