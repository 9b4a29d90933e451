import json
from pathlib import Path

import pytest
import torch

from tests.reporters import Listening
from thaw.data.dataset import Dataset
from thaw.pipeline import finetune
from thaw.progress import NullReporter
from thaw.recipe import Phase, Recipe
from thaw.run_folder import RunFolder

DIVERGING = Phase(name="diverging", cut="pixels", epochs=2, lr=5.0, optimizer="sgd", batch_size=16, batchnorm="train")


def test_a_phase_that_diverges_does_not_change_the_result(images: Path, quick: Recipe, tmp_path: Path) -> None:
    alone = quick.model_copy(update={"phases": quick.phases[:1]})
    diverged = quick.model_copy(update={"phases": (quick.phases[0], DIVERGING)})
    reporter = Listening()
    expected = finetune(Dataset.open(images), alone, tmp_path / "a", reporter=NullReporter()).state_dict()
    kept = finetune(Dataset.open(images), diverged, tmp_path / "b", reporter=reporter).state_dict()
    assert expected.keys() == kept.keys()
    network = [key for key in expected if key.startswith("backbone.")]
    assert network and all(torch.equal(expected[key], kept[key]) for key in network)
    # The temperature in the last layer is fitted on cached features, which are at another cut in each run.
    evaluations = [json.loads(RunFolder(tmp_path / name / "train-1").evaluation.read_text()) for name in "ab"]
    temperatures = [evaluation["calibration"]["temperature"] for evaluation in evaluations]
    for key in expected.keys() - set(network):
        assert torch.allclose(expected[key] * temperatures[0], kept[key] * temperatures[1], rtol=1e-5)
    assert any(line.startswith("phase diverging is not kept: ") for line in reporter.said)
    assert any(line.startswith("kept: phase head, ") for line in reporter.said)


@pytest.mark.parametrize("phase", [0, 1])
def test_a_loss_that_is_not_finite_stops_the_phase_with_advice_and_keeps_the_best_weights(
    phase: int, images: Path, quick: Recipe, tmp_path: Path
) -> None:
    broken = quick.phases[phase].model_copy(
        update={"name": "broken", "lr": 10.0, "optimizer": "sgd", "cut": "pixels", "batchnorm": "train", "epochs": 9}
    )
    order = (broken, quick.phases[0]) if phase == 0 else (quick.phases[0], broken)
    reporter = Listening()
    classifier = finetune(Dataset.open(images), quick.model_copy(update={"phases": order}), tmp_path, reporter=reporter)
    assert all(torch.isfinite(value).all() for value in classifier.state_dict().values())
    (note,) = [line for line in reporter.said if "broken stopped" in line]
    assert "in epoch" in note and "learning rate" in note and f"--set phases.{phase}.lr=1" in note
