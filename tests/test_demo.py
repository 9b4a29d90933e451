import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.reporters import Listening
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

    def train(images: Path, name: str, *_: object) -> demo.Start:
        seen.append(images)
        return demo.Start(name, (0.0, 0.0), 0.0, tmp_path / "runs" / "train-1")

    monkeypatch.setattr(demo, "_train", train)
    kept = tmp_path / "images" / "mine"
    kept.mkdir(parents=True)
    demo.run_demo(tmp_path, reporter=NullReporter())
    assert seen == [tmp_path / "images"]
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["mine"]


def test_the_commands_that_the_demo_suggests_are_of_its_own_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, heard = tmp_path / "my demo", Listening()
    (folder / "images").mkdir(parents=True)
    run = folder / "runs" / "train-2"
    monkeypatch.setattr(demo, "_train", lambda *_: demo.Start("", (0.0, 0.0), 0.0, run))
    demo.run_demo(folder, reporter=heard)
    monkeypatch.setattr("thaw.formats.os", SimpleNamespace(name="nt", fspath=os.fspath))
    demo.run_demo(folder, reporter=heard)
    assert f'thaw inspect "{folder}/images", thaw predict "{run}" "{folder}/images/scratch"' in heard.said.pop()
    assert f"thaw inspect '{folder}/images', thaw predict '{run}' '{folder}/images/scratch'" in heard.said[-1]
