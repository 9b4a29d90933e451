"""Files of tensors have the same bytes whenever their content is the same."""

import pytest
import torch
from safetensors.torch import load

from thaw.tensors import bytes_of_tensors, metadata_of

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1, 2], dtype=torch.int8)}
METADATA = {"ångström": "500 nm", "mean": "[0.5]", "architecture": "starter", "z": "", "input_size": "[3, 224, 224]"}


def test_the_same_tensors_and_metadata_are_the_same_bytes() -> None:
    # The library alone orders five metadata in another way nearly every time.
    assert len({bytes_of_tensors(TENSORS, METADATA) for _ in range(20)}) == 1
    assert bytes_of_tensors(TENSORS, dict(reversed(METADATA.items()))) == bytes_of_tensors(TENSORS, METADATA)


@pytest.mark.parametrize("metadata", [METADATA, {"one": "1"}, {}])
def test_what_is_written_is_read(metadata: dict[str, str]) -> None:
    content = bytes_of_tensors(TENSORS, metadata)
    found = load(content)
    assert found.keys() == TENSORS.keys() and all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)
    if metadata:
        assert metadata_of(content) == metadata
        header = 8 + int.from_bytes(content[:8], "little")
        assert header % 8 == 0 and metadata_of(content[:header]) == metadata
