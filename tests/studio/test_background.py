from collections.abc import Iterator

import pytest

from tests.studio.waiting import until
from thaw.errors import WriteError
from thaw.studio.background import Background, Kind, Status


@pytest.fixture
def background() -> Iterator[Background]:
    made = Background()
    made.start()
    yield made
    made.stop()


def fail() -> None:
    raise WriteError("exports", "the disk is full")


def test_why_a_job_failed_is_known_until_another_one_of_its_kind_begins(background: Background) -> None:
    done: list[dict[Kind, str]] = []

    def look() -> None:
        done.append(dict(background.errors))

    background.submit("export", fail)
    background.submit("copy", look)
    background.submit("copy", fail)
    background.submit("images", look)
    background.submit("export", look)
    until(lambda: len(done) == 3 and background.status == Status())
    export, copy = {"export": "exports: the disk is full"}, {"copy": "exports: the disk is full"}
    assert done == [export, export | copy, copy] and background.errors == copy
    assert list(done[1]) == ["export", "copy"]


def test_an_unexpected_error_is_said_and_the_next_job_is_done(background: Background) -> None:
    done: list[int] = []
    background.submit("outlook", lambda: done.append(1 // 0))
    background.submit("images", lambda: done.append(1))
    until(lambda: done)
    assert background.errors == {"outlook": "internal error; see the output of thaw studio"}
