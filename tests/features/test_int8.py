"""A network in int8 is computed in integers by OpenVINO, with the same bits everywhere."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.backbones.test_int8 import SIZE, network, pixels
from tests.features.test_extract import request
from thaw.backbones.contract import Backbone
from thaw.backbones.int8 import quantise
from thaw.backbones.weights import write_file
from thaw.errors import RecipeError
from thaw.features import openvino_runner, probe
from thaw.features.cache import FeatureCache
from thaw.features.engines import INT8, REFERENCE, FrozenPart, make_runner, reference_of, unusable
from thaw.features.extract import extract, find_features
from thaw.features.probe import ExtractionJob, choose_engine, distance_between
from thaw.features.torch_runner import Frozen
from thaw.recipe import Engine

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def int8() -> Backbone:
    backbone = network()
    quantise(backbone, [pixels()])
    return backbone


def values(backbone: Backbone, positions: list[int], images: torch.Tensor) -> torch.Tensor:
    return make_runner(INT8, backbone, CPU, positions, SIZE).run(images)[-1].values


def precisions_of_convolutions(compiled: Any) -> set[str]:
    """Of the inputs of the convolutions, of which there is at least one, in a compiled OpenVINO model."""
    about = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    kinds = [(each["layerType"].astype(str), each["runtimePrecision"].astype(str)) for each in about]
    found = {precision for layer, precision in kinds if layer == "Convolution"}
    assert found
    return found


def test_features_agree_with_those_of_rounded_floats(int8: Backbone) -> None:
    head = [int8.head_position]
    (expected,) = make_runner(REFERENCE, int8, CPU, head).run(pixels())
    assert distance_between(values(int8, head, pixels()), expected.values) < 0.05


def test_convolutions_are_computed_in_integers(int8: Backbone) -> None:
    compiled = openvino_runner._compiled(Frozen(int8, [int8.head_position]), "fp32", SIZE)
    assert precisions_of_convolutions(compiled) <= {"u8", "i8"}


def test_bits_depend_neither_on_threads_nor_on_other_cuts_nor_on_neighbours(int8: Backbone) -> None:
    head, images = int8.head_position, pixels(9)
    expected = values(int8, [head], images)
    assert torch.equal(values(int8, [2, head - 1, head], images), expected)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(values(int8, [head], images[order]), expected[order])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert torch.equal(values(int8, [head], images), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("is_int8", [True, False])
def test_features_of_all_stages_serve_a_head_on_the_last_one_in_float_only(
    int8: Backbone, is_int8: bool, tmp_path: Path
) -> None:
    # In int8 some images are rounded differently where the maps of all stages are asked for: with MobileNetV2 four of
    # 396 photographs.
    frozen = FrozenPart(int8 if is_int8 else network(), CPU, INT8)
    views, cache, top = request(frozen.backbone), FeatureCache(tmp_path, "float16"), frozen.backbone.head_position
    with frozen.backbone.taking("all"):
        extract(views, frozen, [top], cache, lambda *_: None)
        assert find_features(views.description, frozen, top, cache)
    assert (find_features(views.description, frozen, top, cache) is None) == is_int8


_FEATURES = """
import sys
import numpy as np, torch
from thaw.backbones import build
from thaw.features.engines import INT8, make_runner
from thaw.recipe import Recipe
weights, images, out = sys.argv[1:4]
backbone = build(Recipe(backbone=sys.argv[4], weights=weights))
runner = make_runner(INT8, backbone, torch.device("cpu"), [backbone.head_position])
np.save(out, runner.run(torch.from_numpy(np.load(images)))[0].values.numpy())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other CPUs have other instructions")
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "resnet18", "efficientnet_b0"])
def test_bits_are_the_same_on_cpus_without_vnni(name: str, tmp_path: Path) -> None:
    backbone = network(name)
    quantise(backbone, [pixels()])
    write_file(backbone, tmp_path / "int8.safetensors")
    np.save(tmp_path / "images.npy", pixels().numpy())
    found = []
    for instructions in ("AVX2", "AVX512_CORE_AMX"):
        arguments = [tmp_path / "int8.safetensors", tmp_path / "images.npy", tmp_path / "features.npy", name]
        environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
        subprocess.run([sys.executable, "-c", _FEATURES, *map(str, arguments)], env=environment, check=True)
        found.append(np.load(tmp_path / "features.npy"))
    assert np.array_equal(*found)


def test_no_other_engine_runs_it_and_it_stays_on_the_cpu(
    int8: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reference_of(int8) == INT8 and reference_of(network()) == REFERENCE
    assert "cannot run weights in int8" in unusable("pytorch-fp32", int8, CPU)
    assert unusable(INT8, int8, torch.device("cuda")) == ""
    assert FrozenPart(int8, torch.device("cuda"), INT8).runs_on == CPU
    assert unusable(INT8, network(), torch.device("cuda")) == "runs on the CPU only"
    job = ExtractionJob(int8, CPU, [int8.head_position], pixels(), 1)
    chosen = choose_engine(job, "auto", tmp_path)
    assert chosen.engine == INT8 and chosen.images_per_second > 0 and "in int8" in chosen.reason
    wanted: Engine = "pytorch-bf16"

    def fails(*_: object) -> object:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(probe, "make_runner", fails)
    with pytest.raises(RecipeError, match=r"^engine: openvino-fp32 fails here \(RuntimeError: no such .*made from$"):
        choose_engine(job, "auto", tmp_path)
    with pytest.raises(RecipeError, match="engine: pytorch-bf16 cannot run weights in int8; openvino-fp32 can"):
        choose_engine(job, wanted, tmp_path)
