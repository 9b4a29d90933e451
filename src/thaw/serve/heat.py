"""A map laid over the picture that it explains."""

from __future__ import annotations

import cv2
import numpy as np

FAINTEST, STRONGEST = 0.1, 0.6
"""How much of the colour covers the picture where the map is 0 and where it is 1."""


def heat_picture(pixels: np.ndarray, heat: np.ndarray) -> bytes:
    """PNG of an image (S, S, 3) uint8 under a map (h, w) 0..1 in colours from black over red to yellow."""
    height, width = pixels.shape[:2]
    smooth = np.clip(cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC), 0.0, 1.0)
    colours = cv2.applyColorMap(np.rint(smooth * 255).astype(np.uint8), cv2.COLORMAP_INFERNO).astype(np.float32)
    cover = (FAINTEST + (STRONGEST - FAINTEST) * smooth)[..., None]
    blended = pixels[..., ::-1].astype(np.float32) * (1.0 - cover) + colours * cover
    _, encoded = cv2.imencode(".png", np.rint(blended).astype(np.uint8))
    return encoded.tobytes()
