"""Training steps as the reference scripts of timm and torchvision take them, with the same network.

timm: `train.py --amp --amp-dtype bfloat16 --channels-last`, with its PrefetchLoader over batches that stay on the
device. torchvision: `references/classification/train.py --amp`, on one resident batch, and from the files of the large
data set through a DataLoader with one process per core.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import timm
import torch
import torchvision
from timm.data.loader import PrefetchLoader
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torchvision.transforms import v2

from bench.gpu.bare import random_images
from bench.gpu.images import CLASSES
from bench.gpu.setup import Setup
from bench.gpu.table import Row, speed
from bench.gpu.timing import calls_per_second
from thaw.cores import worker_count
from thaw.device import synchronize

_RESIDENT = 8
_FILE_BATCHES = 40


def measure(setup: Setup) -> Iterator[Row]:
    """Every peer, at both batch sizes."""
    for batch in setup.sizes.batches:
        yield speed(f"timm, resident loader, batch {batch}", _timm(setup, batch))
    for batch in setup.sizes.batches:
        step, images = TorchvisionStep(setup), random_images(setup, batch).contiguous()
        targets = torch.randint(len(CLASSES), (batch,), device=setup.device)
        rate = batch * calls_per_second(lambda: step(images, targets), setup.device, setup.sizes.seconds)  # noqa: B023
        yield speed(f"torchvision, one resident batch, batch {batch}", rate)
    batch = setup.sizes.batches[-1]
    note = f"DataLoader with {worker_count()} processes, from JPEG files"
    yield speed(f"torchvision, from files, batch {batch}", _torchvision_from_files(setup, batch), note)


def _timm(setup: Setup, batch: int) -> float:
    """Images per second of timm's training loop."""
    sizes, device = setup.sizes, setup.device
    model = timm.create_model(sizes.network, num_classes=len(CLASSES))
    model = model.to(device=device).to(memory_format=torch.channels_last).train()
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.01, momentum=0.9, weight_decay=2e-5)
    loss_of = nn.CrossEntropyLoss()
    shape = (batch, 3, sizes.side, sizes.side)
    resident = [
        (
            torch.randint(256, shape, dtype=torch.uint8, device=device),
            torch.randint(len(CLASSES), (batch,), device=device),
        )
        for _ in range(_RESIDENT)
    ]
    loader: Any = PrefetchLoader(resident, device=device)  # type: ignore[arg-type]

    def epoch() -> None:
        for images, targets in loader:
            images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = loss_of(model(images), targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return _RESIDENT * batch * calls_per_second(epoch, device, sizes.seconds)


class TorchvisionStep:
    """A step of torchvision's reference: SGD, fp16 with a gradient scaler on a GPU, bf16 on a CPU."""

    def __init__(self, setup: Setup) -> None:
        self._device = setup.device
        self._model = torchvision.models.get_model(setup.sizes.peer, num_classes=len(CLASSES)).to(setup.device).train()
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        self._scaler = torch.amp.GradScaler(setup.device.type, enabled=setup.device.type == "cuda")
        self._dtype = torch.float16 if setup.device.type == "cuda" else torch.bfloat16

    def __call__(self, images: Tensor, targets: Tensor) -> None:
        with torch.autocast(self._device.type, dtype=self._dtype):
            loss = nn.functional.cross_entropy(self._model(images), targets)
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()


def _torchvision_from_files(setup: Setup, batch: int) -> float:
    """Images per second from files, after the first batches."""
    side, workers = setup.sizes.side, worker_count()
    transform = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(side, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    data = torchvision.datasets.ImageFolder(setup.images, transform)
    loader = torch.utils.data.DataLoader(
        data, batch, shuffle=True, num_workers=workers, pin_memory=setup.device.type == "cuda", drop_last=True
    )
    step, seen, started = TorchvisionStep(setup), 0, 0.0
    for number, (images, targets) in enumerate(loader):
        step(images.to(setup.device, non_blocking=True), targets.to(setup.device, non_blocking=True))
        if number == 0 or number == workers:
            # The first batches were prepared while the processes started.
            synchronize(setup.device)
            seen, started = 0, perf_counter()
        else:
            seen += batch
        if number == workers + _FILE_BATCHES:
            break
    synchronize(setup.device)
    return seen / (perf_counter() - started)
