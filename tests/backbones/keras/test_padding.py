from __future__ import annotations

import pytest

from thaw.backbones.keras.padding import same_padding


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "dilation", "expected"),
    [(224, 3, 2, 1, (0, 1)), (112, 3, 1, 1, (1, 1)), (7, 5, 1, 1, (2, 2)), (9, 3, 2, 1, (1, 1)), (9, 3, 1, 2, (2, 2))],
)
def test_padding_is_that_of_tensorflow(
    length: int, kernel: int, stride: int, dilation: int, expected: tuple[int, int]
) -> None:
    assert same_padding(length, kernel, stride, dilation) == expected
