from pathlib import Path

import pytest

from thaw.cache import cache_folder
from thaw.errors import DataError
from thaw.remote import address_of, host_of, is_remote, local_path, shown
from thaw.remote.address import is_file_name, with_password, without_password


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


@pytest.mark.parametrize("place", ["ftp://me:se:cr@t@host:21/a b/", Path("ftp://me:se:cr@t@host:21/a b")])
def test_a_password_is_only_in_what_is_opened(place: str | Path) -> None:
    address = "ftp://me@host:21/a b"
    assert (address_of(place), host_of(place), shown(local_path(place))) == (address, "ftp://me@host:21", address)
    assert "cr" not in str(local_path(place).relative_to(cache_folder().resolve()))
    assert with_password(address) == "ftp://me:se:cr@t@host:21/a b"
    assert (
        without_password(f"no answer of {place} and of https://:x@b/c")
        == f"no answer of {place}".replace(":se:cr@t", "") + " and of https://@b/c"
    )


def test_a_user_may_have_an_at_sign() -> None:
    assert without_password("--storage=postgresql://me@server:pw@host/db") == "--storage=postgresql://me@server@host/db"


@pytest.mark.parametrize(
    "address", ["https://host:8000/a@2x.png", "github://owner:images@main/a", "abfs://steel@account/a", "s3://b/x:y@z"]
)
def test_what_is_no_password_stays(address: str) -> None:
    assert address_of(address) == with_password(address) == without_password(address) == address
    assert shown(local_path(host_of(address))) == host_of(address)


@pytest.mark.parametrize("name", ["..\\..\\a.png", "C:", "C:a.png", "\\\\server\\a.png", "a.png:b", ".. ", "a.", "a?"])
def test_a_name_that_leads_out_of_a_folder_of_windows_is_refused_there(name: str) -> None:
    assert not is_file_name(name, "\\") and is_file_name(name, "/")


def test_usual_names_are_those_of_files_everywhere() -> None:
    assert all(
        is_file_name(name, separator) for name in ("a.png", "ä 1 (2).png", "a.b..c", ".x") for separator in "\\/"
    )
