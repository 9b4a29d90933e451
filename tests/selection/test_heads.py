"""The features that heads are compared on: rotated, so that no more of them are left than there are images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from thaw.selection.heads import Basis

WIDTHS = (24, 8)


@pytest.mark.parametrize("images", [10, 100])
def test_a_rotation_leaves_everything_that_tells_images_apart(images: int) -> None:
    plain = np.random.default_rng(0).normal(3.0, 2.0, (images, sum(WIDTHS))).astype(np.float32)
    basis = Basis.of(plain, WIDTHS, "all")
    found = basis.design([plain]).matrix
    standardised = (torch.from_numpy(plain) - basis.mean) / basis.scales
    assert found.shape == (images, min(images, sum(WIDTHS)))
    torch.testing.assert_close(found @ found.T, standardised @ standardised.T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("images", "size"), [(10, 10), (100, 32)])
def test_what_is_decomposed_is_as_small_as_can_be(images: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    decomposed, eigh = list[int](), torch.linalg.eigh

    def watched(matrix: torch.Tensor) -> Any:
        decomposed.append(len(matrix))
        return eigh(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", watched)
    Basis.of(np.random.default_rng(0).normal(size=(images, sum(WIDTHS))).astype(np.float32), WIDTHS, "all")
    assert decomposed == [size]
