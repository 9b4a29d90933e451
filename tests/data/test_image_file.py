import os
import socket
from pathlib import Path

import pytest

from thaw.data.image_file import read_image_file
from thaw.errors import UnreadableImage


def test_the_content_of_a_file_or_of_a_link_to_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"content")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert read_image_file(tmp_path / "a.png") == read_image_file(tmp_path / "b.png") == b"content"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_what_is_not_a_file_is_refused_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    Path("folder.png").mkdir()
    Path("loop.png").symlink_to("loop.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.png")
    for name, reason in {
        "pipe.png": "a pipe, not a file",
        "socket.png": "a socket, not a file",
        "/dev/zero": "a device, not a file",
        "folder.png": "a folder, not a file",
        "loop.png": "Too many levels of symbolic links",
        "absent.png": "no such file",
        "a\0b.png": "no such file",
    }.items():
        with pytest.raises(UnreadableImage, match=reason):
            read_image_file(Path(name))
