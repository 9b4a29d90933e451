from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"


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
