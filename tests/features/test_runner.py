import pytest
import torch

from thaw.backbones.contract import Backbone
from thaw.backbones.timm_backbone import build
from thaw.features.runner import probe_precision
from thaw.features.torch_runner import TorchRunner
from thaw.recipe import PreprocessingSettings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=64), "avg", 0)


def pixels(count: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_one_pass_gives_what_lies_at_every_position(backbone: Backbone) -> None:
    runner, last = TorchRunner(backbone, CPU, "fp32"), len(backbone.block_names)
    at_once = runner.run(pixels(), [3, last - 2, last])
    for position, features in zip([3, last - 2, last], at_once, strict=True):
        assert torch.equal(features, runner.run(pixels(), [position])[0])
        assert torch.allclose(backbone.run(features, position, last), at_once[-1], atol=1e-5)
        assert not features.requires_grad and features.dtype == torch.float32


def test_an_early_output_is_not_changed_by_what_runs_after_it(backbone: Backbone) -> None:
    runner, last = TorchRunner(backbone, CPU, "fp32"), len(backbone.block_names)
    every = list(range(1, last + 1))
    together = runner.run(pixels(2), every)
    for position, features in zip(every, together, strict=True):
        assert torch.equal(features, runner.run(pixels(2), [position])[0]), backbone.block_names[position - 1]


def test_a_format_that_was_asked_for_is_taken(backbone: Backbone) -> None:
    probe = probe_precision(backbone, CPU, "bf16", pixels())
    assert (probe.precision, probe.reason) == ("bf16", "as asked") and probe.images_per_second > 0


def test_the_probe_gives_its_figures_and_refuses_a_format_that_differs(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thaw.features.runner.TOLERANCE", 0.0)
    probe = probe_precision(backbone, CPU, "auto", pixels())
    assert probe.precision == "fp32" and "x the speed" in probe.reason and "%" in probe.reason
    monkeypatch.setattr("thaw.features.runner.TOLERANCE", 10.0)
    monkeypatch.setattr("thaw.features.runner.WORTHWHILE", 0.0)
    assert probe_precision(backbone, CPU, "auto", pixels()).precision == "bf16"
