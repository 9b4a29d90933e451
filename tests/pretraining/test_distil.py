"""A whole distillation in seconds: tiny teacher, tiny student, few crops."""

from __future__ import annotations

import sys
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
from pretraining.configuration import Configuration, Images, Training
from pretraining.crops import Crops
from pretraining.export import mute_silent_channels
from pretraining.shards import Shards, open_shard, shard_folder
from pretraining.training import CHECKPOINT, learning_rate
from thaw.backbones.timm_backbone import build

TEACHER, STUDENT = "test_efficientnet", "mobilenetv3_small_050"


@dataclass(frozen=True)
class Workplace:
    """Where one distillation lies, and how its commands are given."""

    folder: Path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def configuration(self) -> Configuration:
        return Configuration.load(self.folder / "tiny.yaml")

    def configure(self, **training: float) -> None:
        values = {
            "images": {"made_up": 4, "held_out": 3, "crops": 24, "shard": 12},
            "teacher": {"backbone": TEACHER, "size": 64},
            "student": {"backbone": STUDENT, "size": 48, "small_size": 32, "small_steps": 1},
            "pairs": [{"teacher": "blocks.2", "student": "blocks.2", "grid": 3}],
            "training": {
                "steps": 4,
                "decay_steps": 2,
                "warmup_steps": 2,
                "batch": 4,
                "report_steps": 1,
                "checkpoint_steps": 2,
                **training,
            },
        }
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")

    def run(self, command: str, *more: str) -> None:
        arguments = [str(self.folder / "tiny.yaml"), str(self.work), "--teacher", str(self.folder / "t.safetensors")]
        distil.main([command, *arguments, *more])

    def look(self) -> None:
        self.run("look", "--photographs", str(self.folder / "photographs"))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """Photographs, a teacher and a configuration; nothing has run yet."""
    monkeypatch.setattr("pretraining.teacher.VALIDATION_CROPS", 6)
    monkeypatch.setattr("pretraining.teacher.BATCH", 4)
    monkeypatch.setattr("pretraining.export._BATCHES", 3)
    monkeypatch.setattr("pretraining.export._BATCH", 4)
    rng = np.random.default_rng(0)
    (tmp_path / "photographs").mkdir()
    for number in range(6):
        pixels = rng.integers(0, 256, (80, 100 + number, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"photographs/{number}.png"), pixels)
    save_file(timm.create_model(TEACHER).state_dict(), tmp_path / "t.safetensors")
    place = Workplace(tmp_path)
    place.configure()
    return place


def test_from_photographs_to_a_backbone_that_loads(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    workplace.look()
    workplace.run("train")
    assert "step 4: held-out pictures: explained" in capsys.readouterr().out
    out = workplace.folder / "starter.safetensors"
    workplace.run("export", str(out), "--size", "64")
    assert capsys.readouterr().out.strip() == sha256(out.read_bytes()).hexdigest()
    facts = build(STUDENT, str(out)).facts
    assert (facts.pixels.size, facts.mean, facts.std) == (64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert {value.dtype for value in load_file(out).values()} == {torch.float16, torch.int64}


def test_a_training_that_was_stopped_ends_with_the_same_weights(workplace: Workplace) -> None:
    workplace.look()
    workplace.run("train")
    whole = load_file(workplace.work / CHECKPOINT)
    (workplace.work / CHECKPOINT).unlink()
    workplace.configure(steps=2, decay_steps=0)
    workplace.run("train")
    workplace.configure()
    workplace.run("train")
    resumed = load_file(workplace.work / CHECKPOINT)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_teacher_goes_on_where_it_was_stopped(workplace: Workplace) -> None:
    workplace.look()
    first, second = (shard_folder(workplace.work, number) for number in (0, 1))
    pixels, written = np.load(second / "pixels.npy"), first.stat().st_mtime_ns
    for file in second.iterdir():
        file.unlink()
    second.rmdir()
    workplace.look()
    assert np.array_equal(np.load(second / "pixels.npy"), pixels)
    assert first.stat().st_mtime_ns == written


def test_the_teacher_without_openvino_says_nearly_the_same(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    workplace.look()
    fast = dict(open_shard(shard_folder(workplace.work, 0)).arrays)
    monkeypatch.setitem(sys.modules, "openvino", None)
    plain = Workplace(workplace.folder / "plain")
    plain.folder.mkdir()
    for name in ("photographs", "t.safetensors"):
        (plain.folder / name).symlink_to(workplace.folder / name)
    plain.configure()
    plain.look()
    for name, values in open_shard(shard_folder(plain.work, 0)).arrays.items():
        assert np.allclose(values, fast[name], atol=2e-2), name


def test_pixels_and_maps_of_a_batch_are_mirrored_together(workplace: Workplace) -> None:
    workplace.look()
    shards = Shards(workplace.work)
    stored = [open_shard(shard_folder(workplace.work, number)) for number in (0, 1)]
    batch = shards.batch(16, np.random.default_rng(0))
    mirrored = 0
    for pixels, at in zip(batch["pixels"], batch["map-0"], strict=True):
        found = [
            (flip, shard.arrays["map-0"][row])
            for shard in stored
            for row, original in enumerate(shard.arrays["pixels"])
            for flip in (1, -1)
            if np.array_equal(pixels, original[:, ::flip])
        ]
        assert any(np.array_equal(at, other[..., ::flip]) for flip, other in found)
        mirrored += found[0][0] == -1
    assert 0 < mirrored < 16


def test_held_out_pictures_are_in_no_training_crop(workplace: Workplace) -> None:
    pictures = [np.full((64, 64, 3), 10 * number, np.uint8) for number in range(10)]
    settings = Images(made_up=0, made_up_share=0, held_out=5, grey=0, blended=0)
    crops = Crops(pictures, [], settings, 32, seed=0)
    crops._changed = lambda pixels, _: pixels  # type: ignore[method-assign]
    seen = {held: set(np.unique(crops.draw(range(60), held))) for held in (False, True)}
    assert seen == {True: {0, 50}, False: {10, 20, 30, 40, 60, 70, 80, 90}}


def test_the_learning_rate_climbs_stays_and_falls() -> None:
    settings = Training(steps=100, decay_steps=20, warmup_steps=10, lr=1.0)
    assert [learning_rate(settings, step) for step in (0, 4, 10, 80, 90, 99)] == [0.1, 0.5, 1.0, 1.0, 0.5, 0.05]


def test_channels_that_never_varied_stay_constant() -> None:
    backbone = build(STUDENT, "random")
    norm = backbone.network.get_submodule("blocks.1.0.bn2")
    norm.running_var[3] = 1e-33
    images = 100 * torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        magnified = backbone(images).abs().max()
        assert mute_silent_channels(backbone) == 1
        assert backbone(images).abs().max() < magnified
        assert torch.equal(norm(torch.randn(1, len(norm.weight), 4, 4))[0, 3], norm.bias[3].relu().expand(4, 4))
    assert mute_silent_channels(backbone) == 0
