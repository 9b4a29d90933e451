from collections.abc import Sequence
from typing import get_args

import pytest
import torch

from thaw.backbones.contract import Backbone
from thaw.backbones.timm_backbone import build
from thaw.features import engines
from thaw.features.engines import ENGINES, FrozenPart, in_fp32, make_runner, missing
from thaw.recipe import Engine, PreprocessingSettings

CPU = torch.device("cpu")
EXACT: tuple[Engine, ...] = ("pytorch-fp32", "openvino-fp32")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=64), "avg", 0)


def pixels(count: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def outputs(engine: Engine, backbone: Backbone, positions: Sequence[int], count: int = 4) -> list[torch.Tensor]:
    return [at.values for at in make_runner(engine, backbone, CPU, positions).run(pixels(count))]


@pytest.mark.parametrize("engine", EXACT)
def test_one_pass_returns_the_features_at_every_position(engine: Engine, backbone: Backbone) -> None:
    last = len(backbone.block_names)
    at_once = outputs(engine, backbone, [3, last - 2, last])
    for position, features in zip([3, last - 2, last], at_once, strict=True):
        assert torch.allclose(features, outputs("pytorch-fp32", backbone, [position])[0], atol=1e-4)
        assert not features.requires_grad and features.dtype == torch.float32
        with torch.no_grad():
            assert torch.allclose(backbone.run(features, position, last), at_once[-1], atol=1e-4)


@pytest.mark.parametrize("engine", EXACT)
def test_the_statistics_of_stages_are_the_same_by_every_engine_and_below_every_cut(
    engine: Engine, backbone: Backbone
) -> None:
    backbone.use_features("all")
    last = backbone.head_position
    positions = [0, 3, last - 2, last]
    (whole,) = make_runner("pytorch-fp32", backbone, CPU, [last]).run(pixels())
    for position, at in zip(positions, make_runner(engine, backbone, CPU, positions).run(pixels()), strict=True):
        assert at.stages.shape == (4, backbone.stage_width(position))
        assert torch.allclose(at.stages, whole.stages[:, : at.stages.shape[1]], atol=1e-4)
    assert at.stages.shape[1] > 0


def test_an_output_is_not_changed_by_later_blocks(backbone: Backbone) -> None:
    every = list(range(1, len(backbone.block_names) + 1))
    for position, features in zip(every, outputs("pytorch-fp32", backbone, every, 2), strict=True):
        alone = outputs("pytorch-fp32", backbone, [position], 2)[0]
        assert torch.equal(features, alone), backbone.block_names[position - 1]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_the_features_of_an_image_do_not_depend_on_the_batch(count: int, backbone: Backbone) -> None:
    last = [len(backbone.block_names)]
    runner = make_runner("openvino-fp32", backbone, CPU, last)
    (many,) = runner.run(pixels(count))
    assert len(many.values) == count
    for index in range(count):
        (alone,) = runner.run(pixels(count)[index : index + 1])
        assert torch.equal(alone.values[0], many.values[index])


@pytest.mark.parametrize("engine", ["openvino-bf16", "pytorch-bf16"])
def test_bf16_is_close_to_fp32(engine: Engine, backbone: Backbone) -> None:
    last = [len(backbone.block_names)]
    exact, rounded = outputs("pytorch-fp32", backbone, last)[0], outputs(engine, backbone, last)[0]
    assert 0 < float((rounded - exact).norm() / exact.norm()) < 0.05


def test_position_zero_is_the_normalised_pixels_for_every_engine(backbone: Backbone) -> None:
    (normalised,) = outputs("openvino-fp32", backbone, [0])
    assert torch.equal(normalised, outputs("pytorch-fp32", backbone, [0])[0])
    assert normalised.shape == (4, 3, 64, 64)


def test_a_frozen_part_makes_each_runner_once_and_only_when_it_is_needed(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Sequence[int]] = []
    whole = engines.make_runner
    monkeypatch.setattr(engines, "make_runner", lambda *arguments: made.append(arguments[3]) or whole(*arguments))
    frozen = FrozenPart(backbone, CPU, "pytorch-fp32")
    assert not made and "torch" in frozen.label
    assert frozen.runner([3]) is frozen.runner([3]) is not frozen.runner([4])
    assert made == [(3,), (4,)]


def test_the_table_has_every_engine_of_the_recipe() -> None:
    assert set(ENGINES) == set(get_args(Engine))
    assert all(name == f"{spec.kind}-{spec.precision}" for name, spec in ENGINES.items())
    assert {in_fp32(name) for name in ENGINES} == {name for name in ENGINES if name.endswith("fp32")}


def test_an_engine_that_cannot_run_here_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing("openvino-fp32", torch.device("cuda")) == "runs on the CPU only"
    assert not missing("pytorch-bf16", CPU)
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert "pip install openvino" in missing("openvino-bf16", CPU)
