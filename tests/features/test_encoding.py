import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thaw.features.encoding import CacheDtype, decode, dequantise, encode, encoded_bytes, item_type, quantise


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("shape", [(5,), (4, 3, 2)])
def test_encoded_features_have_the_size_of_an_item_and_are_decoded_again(
    dtype: CacheDtype, shape: tuple[int, ...]
) -> None:
    features = torch.randn(6, *shape, generator=torch.Generator().manual_seed(0))
    kind, item_shape = item_type(dtype, shape)
    content = bytes(encode(features, dtype))
    assert len(content) == 6 * encoded_bytes((shape[-1], *shape[:-1]), dtype)
    read = decode(np.frombuffer(content, kind).reshape(6, *item_shape).copy())
    assert torch.allclose(read.float(), features, atol=0 if dtype == "float32" else 0.02)


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
        elements=st.floats(-1e4, 1e4, width=32),
    )
)
def test_the_error_of_eight_bits_is_at_most_half_a_step_of_the_channel(values: np.ndarray) -> None:
    read = dequantise(quantise(values)).numpy()
    spread = np.ptp(values, axis=(1, 2))
    assert (np.abs(read - values).max(axis=(1, 2)) <= spread / 255 / 2 + 1e-5 * (1 + np.abs(values).max())).all()


@pytest.mark.parametrize(("dtype", "value"), [("float16", 1e6), ("uint8", float("inf")), ("float32", float("nan"))])
def test_features_that_a_dtype_cannot_represent_are_refused(dtype: CacheDtype, value: float) -> None:
    with pytest.raises(OverflowError):
        encode(torch.full((2, 5, 2, 2), value), dtype)
