"""A whole distillation in seconds: tiny teacher, few crops."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

from pretraining import distil
from pretraining.configuration import Configuration, ImageCounts, Part
from pretraining.crops import Crops
from pretraining.export import mute_silent_channels
from pretraining.shards import Shards, extract
from pretraining.student import Errors, Range, load_teacher, new_student
from pretraining.training import Pair, checkpoint, learning_rate, load_parts
from thaw.backbones.timm_backbone import build

TEACHER, SIZE = "test_efficientnet", 48
PARTS = ("lower", "upper", "joined")


@dataclass(frozen=True)
class Workplace:
    """Where one distillation lies, and how its commands are given."""

    folder: Path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def weights(self) -> Path:
        return self.folder / "t.safetensors"

    @property
    def configuration(self) -> Configuration:
        return Configuration.load(self.folder / "tiny.yaml")

    def configure(self, steps: int = 4, decay_steps: int = 2) -> None:
        training = {"batch": 4, "steps": steps, "warmup_steps": 2, "decay_steps": decay_steps}
        values = {
            "teacher": TEACHER,
            "images": {"synthetic": 4, "held_out": 3, "size": SIZE, "crops": 24, "shard": 10},
            "parts": {
                "lower": {"start": "pixels", "stop": "blocks.2", "window": 32, **training},
                "upper": {"start": "blocks.2", **training},
                "joined": {"start": "blocks.2", "inputs": "student", "chained": True, "features": 4.0, **training},
            },
            "report_steps": 1,
            "checkpoint_steps": 2,
        }
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")

    def run(self, command: str, *more: str) -> None:
        distil.main([command, str(self.folder / "tiny.yaml"), str(self.work), *more])

    def draw(self) -> None:
        self.run("draw", "--photographs", str(self.folder / "photographs"))

    def train(self, *parts: str) -> None:
        self.run("train", "--teacher", str(self.weights), *(("--parts", *parts) if parts else ()))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """Photographs, a teacher and a configuration; nothing has run yet."""
    monkeypatch.setattr("pretraining.shards.VALIDATION_CROPS", 6)
    monkeypatch.setattr("pretraining.export._BATCHES", 3)
    monkeypatch.setattr("pretraining.export._BATCH", 4)
    rng = np.random.default_rng(0)
    (tmp_path / "photographs").mkdir()
    for number in range(6):
        pixels = rng.integers(0, 256, (80, 100 + number, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"photographs/{number}.png"), pixels)
    place = Workplace(tmp_path)
    save_file(timm.create_model(TEACHER).state_dict(), place.weights)
    place.configure()
    return place


def test_from_photographs_to_a_backbone_that_loads(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    workplace.draw()
    workplace.train()
    assert "joined 4: held-out images, block by block: " in capsys.readouterr().out
    out = workplace.folder / "starter.safetensors"
    workplace.run("export", str(out), "--teacher", str(workplace.weights), "--size", "64")
    assert capsys.readouterr().out.strip() == sha256(out.read_bytes()).hexdigest()
    facts, teacher = build(TEACHER, str(out)).facts, build(TEACHER, str(workplace.weights)).facts
    assert (facts.pixels.size, facts.mean, facts.std) == (64, teacher.mean, teacher.std)
    assert {value.dtype for value in load_file(out).values()} == {torch.float16, torch.int64}


def test_parts_that_were_stopped_end_with_the_same_weights(workplace: Workplace) -> None:
    workplace.draw()
    workplace.train()
    whole = {part: load_file(checkpoint(workplace.work, part)) for part in PARTS}
    for part in PARTS:
        checkpoint(workplace.work, part).unlink()
        workplace.configure(steps=2, decay_steps=0)
        workplace.train(part)
        workplace.configure()
        workplace.train(part)
        resumed = load_file(checkpoint(workplace.work, part))
        assert whole[part].keys() == resumed.keys()
        assert all(torch.equal(whole[part][name], resumed[name]) for name in resumed), part


def test_a_part_changes_no_weight_of_another(workplace: Workplace) -> None:
    workplace.draw()
    workplace.train("lower", "upper")
    names = [
        {name for name in load_file(checkpoint(workplace.work, part)) if name.startswith("student.")}
        for part in ("lower", "upper")
    ]
    assert not names[0] & names[1]
    student = new_student(load_teacher(TEACHER, workplace.weights, SIZE))
    assert {f"student.{name}" for name in student.state_dict()} == names[0] | names[1]


def test_training_brings_the_student_nearer_to_the_teacher(workplace: Workplace) -> None:
    workplace.configure(steps=60, decay_steps=30)
    workplace.draw()
    teacher = load_teacher(TEACHER, workplace.weights, SIZE)
    student = new_student(teacher)
    blocks = Range.of(workplace.configuration.parts["lower"], teacher)
    value = blocks.values(teacher, Shards(workplace.work / "pixels").validation[0])

    @torch.no_grad()
    def error() -> float:
        wanted = blocks.outputs(teacher, value)
        return float(torch.stack(Errors(wanted)(blocks.outputs(student, value), wanted)).mean())

    before = error()
    workplace.train("lower")
    load_parts(Pair(teacher, student), workplace.configuration, workplace.work)
    assert error() < 0.5 * before


def test_looking_and_drawing_go_on_where_they_were_stopped(workplace: Workplace) -> None:
    workplace.draw()
    teacher = load_teacher(TEACHER, workplace.weights, SIZE)
    extract(teacher, 2, workplace.work, "extracted")
    for folder in ("pixels", "extracted"):
        first, second = (workplace.work / folder / f"{number:04d}.npy" for number in (0, 1))
        values, written = np.load(second), first.stat().st_mtime_ns
        second.unlink()
        workplace.draw()
        extract(teacher, 2, workplace.work, "extracted")
        assert np.array_equal(np.load(second), values)
        assert first.stat().st_mtime_ns == written


def test_the_teacher_without_openvino_says_nearly_the_same(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    workplace.draw()
    teacher = load_teacher(TEACHER, workplace.weights, SIZE)
    extract(teacher, 2, workplace.work, "fast")
    monkeypatch.setattr("pretraining.shards.missing", lambda engine, device: "is not installed")
    extract(teacher, 2, workplace.work, "plain")
    fast, plain = (np.load(workplace.work / name / "0000.npy").astype(np.float32) for name in ("fast", "plain"))
    assert np.allclose(fast, plain, atol=2e-2)


def test_batches_of_several_folders_are_of_the_same_crops(workplace: Workplace) -> None:
    workplace.draw()
    teacher = load_teacher(TEACHER, workplace.weights, SIZE)
    extract(teacher, 2, workplace.work, "extracted")
    pixels, looked = Shards(workplace.work / "pixels", workplace.work / "extracted").batch(7, np.random.default_rng(3))
    with torch.no_grad():
        again = teacher.run(Range(0, 2).values(teacher, pixels), 0, 2)
    assert torch.allclose(again, looked.float(), atol=2e-2)


def test_held_out_images_are_in_no_training_crop() -> None:
    images = [np.full((64, 64, 3), 10 * number, np.uint8) for number in range(10)]
    settings = ImageCounts(synthetic=0, synthetic_fraction=0, held_out=5, grey=0, blended=0)
    crops = Crops(images, [], settings, 32, seed=0)
    crops._augmented = lambda pixels, _: pixels  # type: ignore[method-assign]
    seen = {held: set(np.unique(crops.draw(range(60), held))) for held in (False, True)}
    assert seen == {True: {0, 50}, False: {10, 20, 30, 40, 60, 70, 80, 90}}


def test_the_learning_rate_climbs_stays_and_falls() -> None:
    part = Part(start="pixels", steps=100, decay_steps=20, warmup_steps=10, lr=1.0)
    assert [learning_rate(part, step) for step in (0, 4, 10, 80, 90, 99)] == [0.1, 0.5, 1.0, 1.0, 0.5, 0.05]


def test_channels_that_never_varied_stay_constant() -> None:
    # By chance other channels may hide the magnified one.
    torch.manual_seed(0)
    backbone = build("mobilenetv3_small_050", "random")
    norm = backbone.network.get_submodule("blocks.1.0.bn2")
    norm.running_var[3] = 1e-33
    images = 100 * torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        magnified = backbone(images).abs().max()
        assert mute_silent_channels(backbone) == 1
        assert backbone(images).abs().max() < magnified
        assert torch.equal(norm(torch.randn(1, len(norm.weight), 4, 4))[0, 3], norm.bias[3].relu().expand(4, 4))
    assert mute_silent_channels(backbone) == 0
