from pathlib import Path

import pytest

from thaw import demo
from thaw.progress import NullReporter
from thaw.recipe import PreprocessingSettings


@pytest.mark.slow
@pytest.mark.ci
def test_the_demo_compares_its_phases_and_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "IMAGES_PER_CLASS", 16)
    small = demo.RECIPE.with_settings({"preprocessing.image_size": "96", "phases.1.epochs": "2"})
    assert small.preprocessing == PreprocessingSettings(image_size=96)
    monkeypatch.setattr(demo, "RECIPE", small)
    starter, random = demo.run_demo(tmp_path / "demo", random_start=True, reporter=NullReporter())
    assert [len(start.phases) for start in (starter, random)] == [2, 2]
    assert starter.phases[0] > random.phases[0] + 0.1
    assert (tmp_path / "demo" / "runs" / "train-1" / "model" / "model.safetensors").is_file()


def test_the_images_of_the_demo_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(demo, "_train", lambda images, *_: seen.append(images) or demo.Start("", (0.0, 0.0), 0.0))
    kept = tmp_path / "images" / "mine"
    kept.mkdir(parents=True)
    demo.run_demo(tmp_path, reporter=NullReporter())
    assert seen == [tmp_path / "images"]
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["mine"]
