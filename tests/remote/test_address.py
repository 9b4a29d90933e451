from pathlib import Path

import pytest

from thaw.cache import cache_folder
from thaw.errors import DataError
from thaw.remote import address_of, host_of, is_remote, local_path, shown


@pytest.mark.parametrize("place", ["s3://bucket/images", Path("s3://bucket/images"), "gs://b", "https://host:80/a.png"])
def test_addresses_are_told_from_paths_also_when_they_became_paths(place: str | Path) -> None:
    assert is_remote(place)


@pytest.mark.parametrize("place", ["images", "/images", "C:/images", "C:\\images", "hub:owner/name", "a/s3://b", "s3:"])
def test_paths_are_no_addresses(place: str) -> None:
    assert not is_remote(place)


@pytest.mark.parametrize(
    ("place", "address", "host"),
    [
        ("s3://bucket/images/", "s3://bucket/images", "s3://bucket"),
        (Path("s3://bucket/images"), "s3://bucket/images", "s3://bucket"),
        ("S3://Bucket", "s3://Bucket", "s3://Bucket"),
        ("https://host:8000/a b", "https://host:8000/a b", "https://host:8000"),
        ("file:///data/images", "file:///data/images", "file://"),
        (Path("file:///data/images"), "file:///data/images", "file://"),
    ],
)
def test_an_address_has_one_form_a_place_in_the_cache_and_is_shown_in_its_stead(
    place: str | Path, address: str, host: str
) -> None:
    assert address_of(place) == address and host_of(place) == host
    copy = local_path(place)
    assert copy.is_relative_to(cache_folder().resolve() / "remote") and local_path(address) == copy
    assert shown(copy) == address
    assert shown(f"0/3 in {copy}/ok/1.png: damaged; {copy}/a") == f"0/3 in {address}/ok/1.png: damaged; {address}/a"
    assert shown(Path(address)) == address


@pytest.mark.parametrize("address", ["s3://b/../a.png", "s3://b/a//b.png", "s3://b/./a.png", "s3://b/\0"])
def test_a_name_that_cannot_be_a_path_is_refused(address: str) -> None:
    with pytest.raises(DataError, match="cannot be the path of a file"):
        local_path(address)


def test_other_texts_are_shown_as_they_are() -> None:
    for text in ("images/ok/1.png", "/home/remote/x", f"{cache_folder()}/remote"):
        assert shown(text) == text
