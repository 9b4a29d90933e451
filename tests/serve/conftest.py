import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browsing import served
from thaw.classifier.classifier import Classifier
from thaw.classifier.neighbours import unit_rows
from thaw.classifier.review import ReviewPolicy, distances
from thaw.features.engines import REFERENCE
from thaw.prediction.predictor import Predictor
from thaw.run_folder import RunFolder
from thaw.serve.access import AccessPolicy
from thaw.serve.limits import Limits
from thaw.serve.server import server_for, service_of
from thaw.serve.service import Service

NAME = "steel"
Start = Callable[..., AbstractContextManager[str]]


@contextmanager
def running(service: Service, access: AccessPolicy | None = None) -> Iterator[str]:
    """The URL of a server on a real socket."""
    server = server_for(service, access or AccessPolicy())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with served(server, listening):
            yield f"http://127.0.0.1:{port}"


def policy_rejecting(classifier: Classifier, known: list[np.ndarray], outlier: np.ndarray) -> ReviewPolicy:
    """A review policy for which the known images (S, S, 3) uint8 are in distribution and the outlier is not."""
    features = Predictor(classifier, REFERENCE, classifier.device).outputs(np.stack([*known, outlier])).features
    train_features = unit_rows(features[:-1])
    found = distances(features, train_features)
    assert found[-1] > found[:-1].max()
    max_distance = float((found[-1] + found[:-1].max()) / 2)
    return ReviewPolicy(train_features, max_distance, None, 0.9, (1 / 3, 1 / 3, 1 / 3))


@pytest.fixture(scope="session")
def bundle(trained: RunFolder) -> Path:
    return trained.model


@pytest.fixture(scope="session")
def url(bundle: Path) -> Iterator[str]:
    """A server with limits small enough to reach in a test."""
    limits = Limits(batch=4, queue=8, body_bytes=1 << 20, head_seconds=0.6, body_seconds=0.6)
    with running(service_of(bundle, limits, NAME)) as address:
        yield address


@pytest.fixture(scope="session")
def photo(images: Path) -> bytes:
    return (images / "scratch" / "000.png").read_bytes()


@pytest.fixture(scope="session")
def photos(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same image in every supported format."""
    folder = tmp_path_factory.mktemp("formats")
    image = Image.open(images / "scratch" / "000.png").convert("RGB").resize((160, 120))
    files = {}
    for kind in ("JPEG", "PNG", "TIFF", "BMP", "WEBP"):
        image.save(folder / kind, kind)
        files[kind] = (folder / kind).read_bytes()
    return files
