"""Where extracting features takes minutes, the plan tells how much faster the network is in int8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from tests.backbones.test_int8 import network, pixels
from thaw.features.probe import EngineChoice, ExtractionJob
from thaw.planning.int8_offer import with_int8_offer

SLOW = EngineChoice("openvino-fp32", "the fastest", 1.0)


def job(images: int, device: str = "cpu") -> ExtractionJob:
    backbone = network()
    return ExtractionJob(backbone, torch.device(device), [backbone.head_position], pixels(16), images)


def test_it_is_offered_where_it_is_much_faster_and_the_network_stays_in_float(tmp_path: Path) -> None:
    asked = job(1000)
    before = asked.backbone.digest(asked.top)
    offered = with_int8_offer(SLOW, asked, tmp_path)
    assert offered.reason.startswith("the fastest; in int8 ") and "`thaw quantise`" in offered.reason
    assert (offered.engine, offered.images_per_second) == (SLOW.engine, SLOW.images_per_second)
    assert not asked.backbone.facts.int8 and asked.backbone.digest(asked.top) == before


def test_it_is_not_offered_where_it_saves_little_or_cannot_run(tmp_path: Path) -> None:
    assert with_int8_offer(SLOW, job(10), tmp_path) is SLOW
    assert with_int8_offer(SLOW, job(1000, "cuda"), tmp_path) is SLOW
    fast = replace(SLOW, images_per_second=1e7)
    assert with_int8_offer(fast, job(10**10), tmp_path) is fast
