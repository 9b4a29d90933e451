"""Features extracted on a cluster: each node computes a part of the rows, this process writes them in order.

The parts come back as arrays and one process writes the entry, so an entry has the bytes of one that was extracted
here, however many nodes there are, and a lost node leaves nothing to clean up. The weights travel through Ray. Nodes
read the decoded images from the cache folder; where one does not see it, this process renders the views and sends them.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from thaw.backbones import rebuild
from thaw.backbones.facts import Facts
from thaw.backbones.stages import AtCut
from thaw.cluster import Cluster, Device, Shipment, Work, connected, sizes_of, unseen_on_node
from thaw.data.augment import Augmentation
from thaw.data.cluster_reader import ClusterReader
from thaw.data.geometry import PixelSpec
from thaw.data.pixel_store import PixelStore
from thaw.data.reader import reading_with
from thaw.device import to_device
from thaw.errors import ClusterError
from thaw.features.encoding import CacheDtype
from thaw.features.engines import FrozenPart, unusable
from thaw.features.passes import BATCH, compute_pass, extracting_with
from thaw.features.view_request import ViewRequest
from thaw.progress import NullReporter, Reporter

ROWS = 4 * BATCH
"""Rows of a part: a second or more of computing for most networks, and what is repeated when a node is lost."""

_Part = list[tuple[np.ndarray, np.ndarray]]
"""For each position the values (N, H, W, C) or (N, C), and the statistics of stages (N, S)."""


@dataclass(frozen=True)
class ClusterPass:
    """A `Pass` that is computed on a cluster; one of few rows is computed in this process."""

    cluster: Cluster
    shipment: Shipment = field(default_factory=lambda: Shipment(NullReporter()))

    def __call__(
        self, request: ViewRequest, frozen: FrozenPart, positions: Sequence[int], dtype: CacheDtype
    ) -> Generator[Sequence[AtCut]]:
        """As `compute_pass`, in parts of `ROWS` rows."""
        if len(request.rows) <= ROWS:
            yield from compute_pass(request, frozen, positions, dtype)
            return
        cluster, starts = self.cluster, range(0, len(request.rows), ROWS)
        network, weights = _description(frozen, positions, dtype), cluster.put(_bytes_of_weights(frozen))
        images, sizes = _description_of_images(request), sizes_of(request.pixels.folder.iterdir())
        device = Device(torch.get_num_threads(), int(frozen.runs_on.type != "cpu"))

        def with_paths(start: int) -> tuple[object, ...]:
            return weights, network, images, request.rows[start : start + ROWS], sizes

        def with_contents(start: int) -> tuple[object, ...]:
            return weights, network, _rendered(request, start)

        work = Work(sizes, part_of_rows, with_paths, part_of_views, with_contents)
        with closing(self.shipment.results(cluster, work, starts, device)) as parts:
            for _, part in parts:
                yield [_at_cut(*arrays) for arrays in part]


@contextmanager
def extracting_on(address: str | None, reporter: Reporter) -> Iterator[Cluster | None]:
    """On the cluster at an address images are decoded and features extracted while the block runs; for `None`, here.

    Raises:
        ClusterError: There is no such cluster, or not every node has this version of Thaw.
    """
    if address is None:
        yield None
        return
    with connected(address) as cluster, Shipment(reporter) as shipment:
        cluster.check([])
        reporter.say(cluster.description)
        with reading_with(ClusterReader(cluster, reporter)), extracting_with(ClusterPass(cluster, shipment)):
            yield cluster


def part_of_rows(
    weights: np.ndarray, network: str, images: str, rows: np.ndarray, sizes: Mapping[str, int]
) -> _Part | str:
    """Run on a node: what lies at each position for one view of some rows.

    Args:
        weights: The bytes of the backbone's weights, as safetensors.
        network: The backbone, the engine, the positions and the dtype, as JSON.
        images: The pixel store, the view and the augmentation, as JSON.
        rows: (N,), of which the first is at a multiple of `BATCH` of all rows.
        sizes: The bytes of each file of the pixel store.

    Returns:
        A sentence on a file where this node does not see the pixel store.
    """
    if unseen := unseen_on_node(sizes):
        return unseen
    frozen, positions, dtype = _frozen_part(network, weights)
    return _arrays(compute_pass(_request(images, rows), frozen, positions, dtype), dtype)


def part_of_views(weights: np.ndarray, network: str, views: np.ndarray) -> _Part:
    """Run on a node: what lies at each position for rendered views (N, S, S, 3) uint8.

    Args:
        weights, network: As for `part_of_rows`.
        views: Those of some rows, of which the first is at a multiple of `BATCH` of all rows.
    """
    frozen, positions, dtype = _frozen_part(network, weights)
    runner = frozen.runner(positions)
    # Copied, because what Ray gives cannot be written to, which tensors do not know.
    batches = (views[start : start + BATCH].copy() for start in range(0, len(views), BATCH))
    return _arrays((runner.run(to_device(batch, frozen.device)) for batch in batches), dtype)


def _rendered(request: ViewRequest, start: int) -> np.ndarray:
    """The views (N, S, S, 3) uint8 of `ROWS` rows: fewer bytes than the images that they are cropped from."""
    part = replace(request, rows=request.rows[start : start + ROWS])
    with closing(part.batches(BATCH)) as batches:
        return np.concatenate([batch.numpy() for batch in batches])


def _description(frozen: FrozenPart, positions: Sequence[int], dtype: CacheDtype) -> str:
    backbone = frozen.backbone
    described = {
        "facts": asdict(backbone.facts),
        "pooling": backbone.pooling,
        "features": backbone.features,
        "digest": frozen.digest(backbone.head_position),
        "device": frozen.runs_on.type,
        "engine": frozen.engine,
        "label": frozen.label,
        "image_size": frozen.image_size,
        "positions": list(positions),
        "dtype": dtype,
    }
    return json.dumps(described)


def _description_of_images(request: ViewRequest) -> str:
    described = {
        "store": str(request.pixels.folder.absolute()),
        "spec": asdict(request.pixels.spec),
        "augmentation": asdict(request.augmentation),
        "seed": request.seed,
        "view": request.numbers[0],
    }
    return json.dumps(described)


def _bytes_of_weights(frozen: FrozenPart) -> np.ndarray:
    tensors = frozen.backbone.named_weights()
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return np.frombuffer(save(plain), np.uint8)


_last: dict[str, Any] = {}
"""The frozen part and the pixel store that this process used last, each by its description."""


def _frozen_part(network: str, weights: np.ndarray) -> tuple[FrozenPart, list[int], CacheDtype]:
    """The frozen part that `_description` describes; raises `ClusterError` where this node computes other features."""
    described = json.loads(network)
    if _last.get("network") != network:
        device = torch.device(described["device"])
        backbone = rebuild(Facts.from_json(described["facts"]), described["pooling"])
        if problem := unusable(described["engine"], backbone, device):
            raise ClusterError(f"engine: {described['engine']} {problem}")
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
    return _last["frozen"], described["positions"], described["dtype"]


def _request(images: str, rows: np.ndarray) -> ViewRequest:
    described = json.loads(images)
    if _last.get("images") != images:
        store = PixelStore(Path(described["store"]), PixelSpec.from_json(described["spec"]))
        _last.update(images=images, store=store)
    augmentation = Augmentation(**described["augmentation"])
    return ViewRequest(_last["store"], rows, 1, augmentation, described["seed"], described["view"])


def _arrays(batches: Iterable[Sequence[AtCut]], dtype: CacheDtype) -> _Part:
    """What lies at each position in some batches; float16 has infinity for what it cannot represent."""
    of_positions = zip(*(list(outputs) for outputs in batches), strict=True)
    return [_two_arrays(outputs, torch.float16 if dtype == "float16" else torch.float32) for outputs in of_positions]


def _two_arrays(outputs: Sequence[AtCut], dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """What lies at one position in some batches, as two arrays."""
    values = torch.cat([at.values for at in outputs])
    values = values.permute(0, 2, 3, 1) if values.ndim == 4 else values
    stages = torch.cat([at.stages for at in outputs])
    first, second = (part.to(dtype).cpu().contiguous().numpy() for part in (values, stages))
    return first, second


def _at_cut(values: np.ndarray, stages: np.ndarray) -> AtCut:
    """What `_two_arrays` gave, as it was."""
    # Copied, because what Ray gives cannot be written to, which tensors do not know.
    tensor = torch.from_numpy(values.copy())
    return AtCut(tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor, torch.from_numpy(stages.copy()))
