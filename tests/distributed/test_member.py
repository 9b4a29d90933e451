import time

import pytest
from torch import distributed

from tests.several import together
from thaw.distributed import member
from thaw.distributed.member import Failed, Lost, Member
from thaw.processes import Process


def test_all_processes_get_the_texts_of_all_in_the_order_of_ranks() -> None:
    def work(process: Process) -> list[list[str]]:
        time.sleep(0.05 * (2 - process.rank))
        return [process.gathered(f"{turn} of {process.rank}") for turn in range(2)]

    expected = [["0 of 0", "0 of 1", "0 of 2"], ["1 of 0", "1 of 1", "1 of 2"]]
    assert together(3, work) == [expected] * 3


def test_the_main_process_works_and_the_others_wait_for_what_it_gives() -> None:
    called: list[int] = []

    def work(process: Process) -> tuple[str, bool, bool]:
        def give() -> str:
            called.append(process.rank)
            return "chosen"

        return process.from_main(give), process.any(process.rank == 1), process.any(False)

    assert together(2, work) == [("chosen", True, False)] * 2
    assert called == [0]


def test_who_waits_for_a_process_that_fails_ends_at_once() -> None:
    def work(process: Process) -> str:
        if process.is_main:
            raise ValueError("an error")
        return process.from_main(str)

    started = time.monotonic()
    first, second = together(2, work)
    assert isinstance(first, ValueError) and isinstance(second, Failed)
    assert time.monotonic() - started < 5


def test_a_process_without_a_sign_of_life_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "PATIENCE", 0.2)
    with pytest.raises(Lost, match="process 1 has not answered"):
        Member(0, 2, store=distributed.HashStore()).barrier()


def test_only_the_first_process_that_fails_says_why() -> None:
    store = distributed.HashStore()
    members = [Member(rank, 2, store=store) for rank in range(2)]
    assert [members[1].fail(), members[0].fail(), members[1].fail()] == [True, False, True]
    assert members[0].has_failed()
