"""JPEG files decoded by the GPU: how fast, and whether they become the pixels that Pillow gives on the CPU.

Features are computed from the pixels, so an image that is decoded otherwise is another image to the classifier.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import decode_jpeg

from bench.gpu.setup import Setup
from bench.gpu.table import Row, speed
from bench.gpu.timing import calls_per_second

_BATCH = 64


def measure(setup: Setup) -> Iterator[Row]:
    """Speed of both, and their difference in levels of 255, with and without colours at half the resolution."""
    files = [file.read_bytes() for file in sorted(setup.few.rglob("*.jpg"))[:_BATCH]]
    for subsampling, name in ((2, "4:2:0"), (0, "4:4:4")):
        encoded = [_encoded(file, subsampling) for file in files]
        inputs = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in encoded]

        def on_device(inputs: list[Tensor] = inputs) -> list[Tensor]:
            return [image.permute(1, 2, 0) for image in decode_jpeg(inputs, device=setup.device)]

        def by_pillow(encoded: list[bytes] = encoded) -> list[np.ndarray]:
            return [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in encoded]

        for what, decode in (("the device", on_device), ("Pillow", by_pillow)):
            rate = len(files) * calls_per_second(decode, setup.device, setup.sizes.seconds / 4)
            yield speed(f"JPEG files {name} decoded by {what}, one thread", rate)
        pairs = zip(on_device(), by_pillow(), strict=True)
        differences = np.stack([np.abs(ours.cpu().numpy().astype(int) - pillow) for ours, pillow in pairs])
        note = f"largest {differences.max()}, {(differences > 0).mean():.0%} of the values differ"
        yield Row(f"mean difference of {name} in levels of 255", f"{differences.mean():.3f}", note)


def _encoded(data: bytes, subsampling: int) -> bytes:
    """The image as a JPEG file with colours at half the resolution (2) or at all of it (0)."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).save(stream, "jpeg", quality=90, subsampling=subsampling)
    return stream.getvalue()
