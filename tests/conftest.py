from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.browsing import chromium
from tests.cluster.two_nodes import blind_node, one_node, ray_nodes, second_is_blind, two_nodes  # noqa: F401
from thaw.data.dataset import Dataset
from thaw.data.surfaces import write_surfaces
from thaw.pipeline import finetune
from thaw.progress import NullReporter
from thaw.recipe import AugmentSettings, Phase, PreprocessingSettings, Recipe
from thaw.run_folder import RunFolder

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"

settings.register_profile("thaw", deadline=None)
settings.load_profile("thaw")

QUICK = Recipe(
    backbone="mobilenetv3_small_050",
    weights="random",
    engine="pytorch-fp32",
    precision="fp32",
    views=2,
    preprocessing=PreprocessingSettings(image_size=64),
    augment=AugmentSettings(preset="light"),
    phases=(
        Phase(name="head", cut="head", epochs=2, lr=1e-2, batch_size=16, solver="optimizer"),
        Phase(name="fine-tune", cut="stages:2", epochs=2, lr=1e-3, batch_size=16),
    ),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium."""
    with chromium() as started:
        yield started


@pytest.fixture
def shared_data() -> Path:
    return _present(SHARED / "data")


@pytest.fixture
def shared_weights() -> Path:
    return _present(SHARED / "weights")


def _present(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"needs the real images and weights in {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Pixels and features of the tests, and what PyTorch compiles, stay among the tests."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THAW_CACHE", str(cache))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        yield cache


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three kinds of small steel surfaces, twelve of each."""
    folder = tmp_path_factory.mktemp("data") / "surfaces"
    write_surfaces(folder, images_per_class=12, size=64, classes=("ok", "scratch", "stain"))
    return folder


@pytest.fixture(scope="session")
def quick() -> Recipe:
    """A recipe that trains in seconds: two phases on a small network with random weights."""
    return QUICK


@pytest.fixture(scope="session")
def trained(images: Path, quick: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of the quick recipe."""
    runs = tmp_path_factory.mktemp("runs")
    finetune(Dataset.open(images), quick, runs, reporter=NullReporter())
    return RunFolder(runs / "train-1")
