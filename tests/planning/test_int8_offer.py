"""Where extracting features takes minutes, the plan tells how much faster the network is in int8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.backbones.test_int8 import network, pixels
from thaw.features.probe import EngineChoice, ExtractionJob
from thaw.pipeline import plan
from thaw.planning import draft, int8_offer
from thaw.planning.int8_offer import with_int8_offer
from thaw.progress import NullReporter
from thaw.recipe import Recipe

SLOW = EngineChoice("openvino-fp32", "the fastest", 1.0)


def job(device: str = "cpu") -> ExtractionJob:
    backbone = network()
    return ExtractionJob(backbone, torch.device(device), [backbone.head_position], pixels(16), 1000)


def test_it_is_offered_where_it_is_much_faster_and_the_network_stays_in_float(tmp_path: Path) -> None:
    asked = job()
    before = asked.backbone.digest(asked.top)
    offered = with_int8_offer(SLOW, asked, tmp_path)
    assert offered.reason.startswith("the fastest; in int8 ") and "`thaw quantise`" in offered.reason
    assert (offered.engine, offered.images_per_second) == (SLOW.engine, SLOW.images_per_second)
    assert not asked.backbone.facts.int8 and asked.backbone.digest(asked.top) == before


def test_it_is_not_offered_where_it_saves_little_or_cannot_run(tmp_path: Path) -> None:
    assert with_int8_offer(SLOW, job("cuda"), tmp_path) is SLOW
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_offer, "missing", lambda engine, device: "is not installed")
        assert with_int8_offer(SLOW, job(), tmp_path) is SLOW
    standardised = network("nf_resnet26")
    assert with_int8_offer(SLOW, replace(job(), backbone=standardised), tmp_path) is SLOW
    fast = replace(SLOW, images_per_second=1e7)
    assert with_int8_offer(fast, job(), tmp_path) is fast


def test_the_plan_tells_it_where_extraction_takes_minutes(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(backbone="starter").with_settings({"preprocessing.image_size": 64, "measure.seconds": 0})

    def reason(name: str) -> str:
        choices = plan(images, recipe, tmp_path / name, NullReporter()).choices
        return next(choice.reason for choice in choices if choice.setting == "engine")

    assert "int8" not in reason("short.yaml")
    monkeypatch.setattr(draft, "OFFER_FROM", 0.0)
    monkeypatch.setattr(int8_offer, "LEAST_SPEEDUP", 0.0)
    assert "thaw quantise" in reason("long.yaml")
