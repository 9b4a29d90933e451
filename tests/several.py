"""Several processes of one run, as threads of this one that meet at a store in memory; they exchange texts only."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from torch import distributed

from thaw.distributed.member import Member
from thaw.processes import Process

Result = TypeVar("Result")


def together(count: int, work: Callable[[Process], Result]) -> list[Result | Exception]:
    """What the work of each process gives, or the error that it raises, by rank."""
    store = distributed.HashStore()

    def run(rank: int) -> Result | Exception:
        member = Member(rank, count, store=store)
        try:
            return work(member)
        except Exception as error:
            member.fail()
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
