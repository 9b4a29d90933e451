import asyncio
from collections.abc import Awaitable, Callable

import pytest

from thaw.web import places
from thaw.web.limits import RequestRefused
from thaw.web.places import BodyPlaces


async def receive(taken: BodyPlaces, chunk: int, seconds: float = 0.5) -> str:
    """Receive a body in chunks of some bytes every hundredth of a second."""
    try:
        async with taken.take() as place:
            for _ in range(round(100 * seconds)):
                await asyncio.sleep(0.01)
                place.arrived(chunk)
    except TimeoutError:
        return "timed out"
    except RequestRefused as refused:
        return str(refused.status)
    return "received"


def outcomes(start: Callable[[BodyPlaces], list[Awaitable[str]]], limit: int, seconds: float = 5.0) -> list[str]:
    async def run() -> list[str]:
        return list(await asyncio.gather(*start(BodyPlaces(limit, seconds))))

    return asyncio.run(run())


async def later(seconds: float, started: Callable[[], Awaitable[str]]) -> str:
    await asyncio.sleep(seconds)
    return await started()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "TOLERANCE", 0.1)


def test_a_body_has_some_seconds() -> None:
    assert outcomes(lambda taken: [receive(taken, 9000), receive(taken, 9000, 0.01)], 2, 0.1) == [
        "timed out",
        "received",
    ]


def test_where_all_places_are_taken_the_slowest_body_gives_up_its_own() -> None:
    def start(taken: BodyPlaces) -> list[Awaitable[str]]:
        slow, stalled = receive(taken, 500), receive(taken, 0)
        return [slow, stalled, later(0.2, lambda: receive(taken, 9000, 0.05))]

    assert outcomes(start, 2) == ["received", "timed out", "received"]


def test_bodies_that_arrive_fast_enough_keep_their_places() -> None:
    def start(taken: BodyPlaces) -> list[Awaitable[str]]:
        return [receive(taken, 9000), receive(taken, 9000), later(0.2, lambda: receive(taken, 9000))]

    assert outcomes(start, 2) == ["received", "received", "503"]


def test_a_place_is_free_after_its_body() -> None:
    def start(taken: BodyPlaces) -> list[Awaitable[str]]:
        return [later(0.1 * number, lambda: receive(taken, 9000, 0.05)) for number in range(4)]

    assert outcomes(start, 1) == ["received"] * 4
