import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from thaw.backbones.contract import Backbone
from thaw.backbones.stages import AtCut
from thaw.backbones.timm_backbone import build
from thaw.errors import PackageError, RecipeError
from thaw.features import engines, probe
from thaw.features.probe import (
    EngineChoice,
    EngineTiming,
    ExtractionJob,
    agrees,
    choose_engine,
    distance_at_cut,
    distance_between,
)
from thaw.recipe import Engine, PreprocessingSettings

CPU = torch.device("cpu")
MANY = 10_000_000


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=64), "avg", 0)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other work on this machine repeats no probe."""
    monkeypatch.setattr(probe, "BUSY", float("inf"))


def pixels(count: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def choose(backbone: Backbone, cache: Path, images: int, wanted: str = "auto") -> EngineChoice:
    job = ExtractionJob(backbone, CPU, [3, len(backbone.blocks)], pixels(), images)
    return choose_engine(job, wanted, cache)  # type: ignore[arg-type]


def test_a_small_job_is_not_probed_and_does_not_decide_for_a_larger_one(backbone: Backbone, tmp_path: Path) -> None:
    small = choose(backbone, tmp_path, images=8)
    assert small.engine == "pytorch-fp32" and "too few images for a probe" in small.reason
    assert "openvino" in choose(backbone, tmp_path, images=MANY).reason


def test_an_engine_that_cannot_run_here_is_refused_with_the_reason(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^engine: cuda-graph-fp32 runs on CUDA devices only; use auto$"):
        choose(backbone, tmp_path, images=8, wanted="cuda-graph-fp32")


@pytest.mark.usefixtures("steady")
def test_a_probe_gives_its_timings_as_reason_and_is_remembered(backbone: Backbone, tmp_path: Path) -> None:
    first = choose(backbone, tmp_path, images=MANY)
    assert first.reason.count("/s") >= 3 and "differs by" in first.reason
    tried, of_architecture = json.loads((tmp_path / "engines.json").read_text()).values()
    assert tried == of_architecture
    assert {item["engine"] for item in tried["timings"]} >= {"pytorch-fp32", "openvino-fp32", "openvino-bf16"}
    again = choose(backbone, tmp_path, images=MANY)
    assert again.engine == first.engine and again.reason == f"remembered from an earlier run: {first.reason}"


def test_a_probe_on_a_busy_machine_is_repeated_once_the_machine_is_free(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: dict[Engine, float] = {"pytorch-fp32": 10.0, "openvino-fp32": 9.0, "openvino-bf16": 9.0}
    monkeypatch.setattr(probe, "_time_engine", lambda job, engine, _: EngineTiming(engine, rates[engine]))
    assert choose(backbone, tmp_path, images=MANY).engine == "pytorch-fp32"
    # Busier than then, or a little faster: the probe holds.
    for rate in (2.0, 12.0):
        rates["pytorch-fp32"] = rate
        assert choose(backbone, tmp_path, images=MANY).reason.startswith("remembered")
    rates |= {"pytorch-fp32": 20.0, "openvino-fp32": 100.0}
    repeated = choose(backbone, tmp_path, images=MANY)
    assert repeated.engine == "openvino-fp32" and not repeated.reason.startswith("remembered")
    assert choose(backbone, tmp_path, images=MANY).reason == f"remembered from an earlier run: {repeated.reason}"


@pytest.mark.usefixtures("steady")
def test_a_probe_holds_for_other_weights_as_long_as_the_engine_agrees(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not choose(backbone, tmp_path, images=MANY).reason.startswith("remembered")
    other = build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=64), "avg", 1)
    chosen = choose(other, tmp_path, images=MANY)
    assert chosen.reason.startswith("remembered from an earlier run with other weights: openvino")
    again = choose(other, tmp_path, images=MANY)
    assert again.reason.startswith("remembered from an earlier run: openvino")
    third = build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=64), "avg", 2)
    timed = probe._time_engine

    def disagreeing(job: ExtractionJob, engine: Engine, reference: AtCut | None) -> EngineTiming:
        found = timed(job, engine, reference)
        return replace(found, distance=0.5) if engine == chosen.engine else found

    monkeypatch.setattr(probe, "_time_engine", disagreeing)
    repeated = choose(third, tmp_path, images=MANY)
    assert not repeated.reason.startswith("remembered") and repeated.engine != chosen.engine


@pytest.mark.usefixtures("steady")
def test_a_probe_holds_for_other_images_as_long_as_the_engine_agrees_on_them(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: dict[Engine, float] = {"pytorch-fp32": 10.0, "openvino-fp32": 20.0, "openvino-bf16": 90.0}
    distances: dict[int, float] = {0: 0.004, 1: 0.021, 2: 0.106}

    def timed(job: ExtractionJob, engine: Engine, _: AtCut | None) -> EngineTiming:
        asked.append(engine)
        return EngineTiming(engine, rates[engine], distances[int(job.pixels[0, 0, 0, 0])] if "bf16" in engine else 0.0)

    def chosen(number: int) -> EngineChoice:
        asked.clear()
        images = torch.full((4, 64, 64, 3), number, dtype=torch.uint8)
        return choose_engine(ExtractionJob(backbone, CPU, [3], images, MANY), "auto", tmp_path)

    asked: list[Engine] = []
    monkeypatch.setattr(probe, "_time_engine", timed)
    assert chosen(0).engine == "openvino-bf16"
    others = chosen(1)
    assert others.engine == "openvino-bf16"
    assert others.reason.startswith(
        "remembered from an earlier run with other images: openvino-bf16 90/s (differs by 2.1%)"
    )
    again = chosen(1)
    assert again.reason.startswith("remembered from an earlier run: openvino-bf16 90/s (differs by 2.1%)")
    # Whether the machine was busy is all that the same images are run for.
    assert asked == ["pytorch-fp32"]
    refused = chosen(2)
    assert refused.engine == "openvino-fp32" and "openvino-bf16 90/s (differs by 10.6%)" in refused.reason


def test_a_requested_engine_is_used_and_timed(backbone: Backbone, tmp_path: Path) -> None:
    chosen = choose(backbone, tmp_path, images=8, wanted="openvino-bf16")
    assert (chosen.engine, chosen.reason) == ("openvino-bf16", "as requested") and chosen.images_per_second > 0


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (RuntimeError("no C++ compiler\n100 lines"), RecipeError, r"RuntimeError: no C\+\+ compiler\); use auto$"),
        (torch.OutOfMemoryError("out of memory"), torch.OutOfMemoryError, "^out of memory$"),
        (PackageError("openvino is damaged"), PackageError, "^openvino is damaged$"),
    ],
)
def test_a_requested_engine_that_fails_is_refused_in_one_sentence(
    raised: Exception,
    expected: type[Exception],
    message: str,
    backbone: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "make_runner", failing(raised))
    with pytest.raises(expected, match=message):
        choose(backbone, tmp_path, images=8, wanted="compiled-fp32")


def failing(error: Exception) -> Callable[..., object]:
    def make(*_: object) -> object:
        raise error

    return make


def test_an_engine_that_is_inaccurate_or_hardly_faster_is_not_chosen(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timings = {
        "pytorch-fp32": EngineTiming("pytorch-fp32", 10.0),
        "openvino-fp32": EngineTiming("openvino-fp32", 100.0, 1e-6),
        "openvino-bf16": EngineTiming("openvino-bf16", 900.0, 0.031),
    }
    monkeypatch.setattr(probe, "_time_engine", lambda job, engine, _: timings[engine])
    inaccurate = choose(backbone, tmp_path / "a", images=MANY)
    assert (
        inaccurate.engine == "openvino-fp32"
        and "differs by 3.1%" in inaccurate.reason
        and "at most 3%" in inaccurate.reason
    )
    timings["openvino-bf16"] = EngineTiming("openvino-bf16", 109.0, 0.001)
    assert choose(backbone, tmp_path / "b", images=MANY).engine == "openvino-fp32"
    timings["openvino-bf16"] = EngineTiming("openvino-bf16", 111.0, 0.029)
    assert choose(backbone, tmp_path / "c", images=MANY).engine == "openvino-bf16"


def test_without_openvino_a_long_job_tries_to_compile_and_a_failure_is_reported_in_the_reason(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = probe.make_runner

    def broken(engine: Engine, *arguments: object) -> object:
        if engine.startswith("compiled"):
            raise RuntimeError("no C++ compiler")
        return whole(engine, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(probe, "make_runner", broken)
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "openvino" else name)
    chosen = choose(backbone, tmp_path, images=MANY)
    assert chosen.engine.startswith("pytorch")
    assert "compiled-bf16 fails here (RuntimeError: no C++ compiler)" in chosen.reason


@pytest.mark.parametrize("damage", ["{", "[]", '{"x": 1}'])
def test_a_damaged_file_of_results_is_ignored(
    damage: str, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_time_engine", lambda job, engine, _: EngineTiming(engine, 10.0))
    (tmp_path / "engines.json").write_text(damage)
    assert not choose(backbone, tmp_path, images=MANY).reason.startswith("remembered")
    assert choose(backbone, tmp_path, images=MANY).reason.startswith("remembered")


def test_the_distance_is_the_largest_of_any_image_and_infinite_for_nan() -> None:
    reference = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert distance_between(reference, reference) == 0.0
    assert distance_between(torch.tensor([[3.0, 4.5], [0.0, 1.2]]), reference) == pytest.approx(0.2)
    assert distance_between(torch.tensor([[3.0, 4.0], [float("nan"), 1.0]]), reference) == float("inf")
    assert not agrees(EngineTiming("openvino-bf16", 1.0, float("inf"))) and not agrees(
        EngineTiming("openvino-bf16", problem="x")
    )


def test_the_distance_at_a_cut_is_the_larger_of_values_and_statistics() -> None:
    reference = AtCut(torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[0.0, 1.0]]))
    assert distance_at_cut(AtCut(torch.tensor([[[[3.0, 4.5]]]]), reference.stages), reference) == pytest.approx(0.1)
    assert distance_at_cut(AtCut(reference.values, torch.tensor([[0.0, 1.2]])), reference) == pytest.approx(0.2)
    nothing = AtCut.above_nothing(reference.values)
    assert distance_at_cut(nothing, nothing) == 0.0


def test_without_a_frozen_part_nothing_is_probed(backbone: Backbone, tmp_path: Path) -> None:
    chosen = choose_engine(ExtractionJob(backbone, CPU, [0], pixels(), MANY), "auto", tmp_path)
    assert chosen.engine == "pytorch-fp32" and chosen.reason == "nothing is frozen"
