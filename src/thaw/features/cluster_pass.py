"""Features extracted on a cluster: each node computes a part of the rows, this process writes them in order.

The parts come back as arrays and one process writes the entry, so an entry has the bytes of one that was extracted
here, however many nodes there are, and a lost node leaves nothing to clean up. Nodes read the decoded images from the
cache folder, which they must see; the weights travel through Ray.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from thaw.backbones import rebuild
from thaw.backbones.facts import Facts
from thaw.backbones.stages import AtCut
from thaw.cache import cache_folder
from thaw.cluster import Cluster, Device, connected
from thaw.data.augment import Augmentation
from thaw.data.geometry import PixelSpec
from thaw.data.pixel_store import PixelStore
from thaw.errors import ClusterError
from thaw.features.encoding import CacheDtype
from thaw.features.engines import FrozenPart, missing
from thaw.features.passes import BATCH, compute_pass, extracting_with
from thaw.features.view_request import ViewRequest
from thaw.progress import Reporter

ROWS = 4 * BATCH
"""Rows of a part: a second or more of computing for most networks, and what is repeated when a node is lost."""

_Part = list[tuple[np.ndarray, np.ndarray]]
"""For each position the values (N, H, W, C) or (N, C), and the statistics of stages (N, S)."""


@dataclass(frozen=True)
class ClusterPass:
    """A `Pass` that is computed on a cluster; one of few rows is computed in this process."""

    cluster: Cluster

    def __call__(
        self, request: ViewRequest, frozen: FrozenPart, positions: Sequence[int], dtype: CacheDtype
    ) -> Generator[Sequence[AtCut]]:
        """As `compute_pass`, in parts of `ROWS` rows."""
        if len(request.rows) <= ROWS:
            yield from compute_pass(request, frozen, positions, dtype)
            return
        store = request.pixels.folder.absolute()
        self.cluster.check([store])
        network, images = _description(frozen, positions), _description_of_images(request, store)
        weights = self.cluster.put(_bytes_of_weights(frozen))
        number = request.numbers[0]
        pieces = (
            (weights, network, images, request.rows[start : start + ROWS], number, dtype == "float16")
            for start in range(0, len(request.rows), ROWS)
        )
        device = Device(torch.get_num_threads(), int(frozen.device.type != "cpu"))
        for part in self.cluster.starmap(part_of_pass, pieces, device, [store]):
            yield [_at_cut(*arrays) for arrays in part]


@contextmanager
def extracting_on(address: str | None, reporter: Reporter) -> Iterator[Cluster | None]:
    """Features are extracted on the cluster at an address while the block runs; in this process for `None`.

    Raises:
        ClusterError: There is no such cluster, or not every node has this version of Thaw.
    """
    if address is None:
        yield None
        return
    with connected(address) as cluster:
        cluster.check([cache_folder()])
        reporter.say(cluster.description)
        with extracting_with(ClusterPass(cluster)):
            yield cluster


def part_of_pass(weights: np.ndarray, network: str, images: str, rows: np.ndarray, view: int, half: bool) -> _Part:
    """Run on a node: what lies at each position for one view of some rows.

    Args:
        weights: The bytes of the backbone's weights, as safetensors.
        network: The backbone, the engine and the positions, as JSON.
        images: The pixel store and the augmentation, as JSON.
        rows: (N,), of which the first is at a multiple of `BATCH` of all rows.
        view: The number of the view.
        half: Give float16, with infinity for what it cannot represent; else float32.
    """
    frozen, positions = _frozen_part(network, weights)
    request = _request(images, rows, view)
    dtype: CacheDtype = "float16" if half else "float32"
    batches = [list(outputs) for outputs in compute_pass(request, frozen, positions, dtype)]
    return [_arrays(outputs, half) for outputs in zip(*batches, strict=True)]


def _description(frozen: FrozenPart, positions: Sequence[int]) -> str:
    backbone = frozen.backbone
    described = {
        "facts": asdict(backbone.facts),
        "pooling": backbone.pooling,
        "features": backbone.features,
        "digest": frozen.digest(backbone.head_position),
        "device": frozen.device.type,
        "engine": frozen.engine,
        "label": frozen.label,
        "image_size": frozen.image_size,
        "positions": list(positions),
    }
    return json.dumps(described)


def _description_of_images(request: ViewRequest, store: Path) -> str:
    described = {
        "store": str(store),
        "spec": asdict(request.pixels.spec),
        "augmentation": asdict(request.augmentation),
        "seed": request.seed,
    }
    return json.dumps(described)


def _bytes_of_weights(frozen: FrozenPart) -> np.ndarray:
    tensors = frozen.backbone.named_weights()
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return np.frombuffer(save(plain), np.uint8)


_last: dict[str, Any] = {}
"""The frozen part and the pixel store that this process used last, each by its description."""


def _frozen_part(network: str, weights: np.ndarray) -> tuple[FrozenPart, list[int]]:
    """The frozen part that `_description` describes; raises `ClusterError` where this node computes other features."""
    described = json.loads(network)
    if _last.get("network") != network:
        device = torch.device(described["device"])
        if problem := missing(described["engine"], device):
            raise ClusterError(f"engine: {described['engine']} {problem}")
        backbone = rebuild(Facts.from_json(described["facts"]), described["pooling"])
        backbone.use_features(described["features"])
        backbone.load_named_weights(load(weights.tobytes()))
        backbone.eval().requires_grad_(False)
        frozen = FrozenPart(backbone.to(device), device, described["engine"], described["image_size"])
        if frozen.digest(backbone.head_position) != described["digest"]:
            raise ClusterError("the network that is built here has other weights; install the same packages everywhere")
        if frozen.label != described["label"]:
            raise ClusterError(
                f"computes with {frozen.label}, and the command with {described['label']}; install the same packages "
                "everywhere"
            )
        _last.update(network=network, frozen=frozen)
    return _last["frozen"], described["positions"]


def _request(images: str, rows: np.ndarray, view: int) -> ViewRequest:
    described = json.loads(images)
    if _last.get("images") != images:
        store = PixelStore(Path(described["store"]), PixelSpec.from_json(described["spec"]))
        _last.update(images=images, store=store)
    return ViewRequest(_last["store"], rows, 1, Augmentation(**described["augmentation"]), described["seed"], view)


def _arrays(outputs: Sequence[AtCut], half: bool) -> tuple[np.ndarray, np.ndarray]:
    """What lies at one position in some batches, as two arrays."""
    values = torch.cat([at.values for at in outputs])
    values = values.permute(0, 2, 3, 1) if values.ndim == 4 else values
    stages = torch.cat([at.stages for at in outputs])
    dtype = torch.float16 if half else torch.float32
    first, second = (part.to(dtype).cpu().contiguous().numpy() for part in (values, stages))
    return first, second


def _at_cut(values: np.ndarray, stages: np.ndarray) -> AtCut:
    """What `_arrays` gave, as it was."""
    # Copied, because what Ray gives cannot be written to, which tensors do not know.
    tensor = torch.from_numpy(values.copy())
    return AtCut(tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor, torch.from_numpy(stages.copy()))
