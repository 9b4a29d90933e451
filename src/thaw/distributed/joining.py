"""A process joins those it was started with, and all end together: with one sentence, and the same exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from threading import Timer
from typing import NoReturn

from torch import distributed
from torch.distributed import DistError

from thaw.distributed import launched, launched_processes
from thaw.distributed.agreement import check_same
from thaw.distributed.launcher import ENDED, Launcher, launcher
from thaw.distributed.member import COLLECTIVE_SECONDS, Failed, Lost, Member, backend, give_signs
from thaw.errors import ThawError, TrainingError, first_line
from thaw.processes import ALONE, Process
from thaw.version import __version__

USER_ERROR = 2
"""Exit code of all processes where one has an error that the user can fix."""

MEETING_SECONDS = 300.0
"""Seconds in which all processes must have come."""

LEAVE_SECONDS = 5.0
"""Seconds that the process which hosts the store gives the others to see that it failed."""

_members: list[Member] = []


@contextmanager
def joined() -> Iterator[Process]:
    """This process as one of those that it was started with, or alone; within another such block, the same one.

    Raises:
        ThawError: In the first process that fails with one. The others end with the same exit code, and say nothing.
    """
    if not launched():
        yield ALONE
    elif _members:
        with _ending_together(_members[-1]):
            yield _members[-1]
    else:
        launch = launcher()
        launch.end_with_launch()
        if launch.is_refused():
            raise SystemExit(USER_ERROR)
        member = _join(launch)
        signs = give_signs(member.store, member.rank)
        _members.append(member)
        try:
            with _ending_together(member):
                check_same(member, "version of Thaw", __version__, "install the same one everywhere")
                yield member
                member.barrier()
        finally:
            signs.set()
            _members.clear()
            with suppress(RuntimeError, AssertionError, ValueError):
                distributed.destroy_process_group()


def _join(launch: Launcher) -> Member:
    """Meet the others; raises `TrainingError` where they cannot be reached."""
    variables = os.environ
    place = f"{variables['MASTER_ADDR']}:{variables['MASTER_PORT']}"
    is_one_machine = variables.get("LOCAL_WORLD_SIZE") == variables["WORLD_SIZE"]
    if sys.platform == "linux" and (is_one_machine or variables["MASTER_ADDR"].startswith("127.")):
        # On one machine nothing needs to leave it.
        variables.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # PyTorch waits for ever for an answer of another program that listens there.
    watch = Timer(MEETING_SECONDS + LEAVE_SECONDS, _give_up, [place])
    watch.daemon = True
    watch.start()
    try:
        meeting = distributed.rendezvous("env://", timeout=timedelta(seconds=MEETING_SECONDS))
        shared, rank, count = next(meeting)
        # torchrun keeps its store when it restarts processes, with what they left in it.
        store = distributed.PrefixStore(f"thaw/{launch.restarts}", shared)
        distributed.init_process_group(
            backend(), store=store, rank=rank, world_size=count, timeout=timedelta(seconds=COLLECTIVE_SECONDS)
        )
    except (DistError, ValueError, RuntimeError) as error:
        raise TrainingError(
            f"the {launched_processes()} processes cannot meet at {place} ({first_line(error)}); choose a free port "
            f"that all machines reach, for example torchrun --master-port"
        ) from error
    finally:
        watch.cancel()
    return Member(rank, count, launch.name, launch.restarts, store=store)


def _give_up(place: str) -> None:
    seconds = round(MEETING_SECONDS)
    print(
        f"thaw: process {os.environ['RANK']} has not met the others at {place} within {seconds} s; choose a free port "
        f"that all machines reach, for example torchrun --master-port",
        file=sys.__stderr__,
        flush=True,
    )
    os._exit(USER_ERROR)


@contextmanager
def _ending_together(member: Member) -> Iterator[None]:
    try:
        yield
    except Failed:
        _end_for_another(member)
    except ThawError as error:
        if _is_first(member, f"thaw: {error}"):
            raise
        _end_for_another(member)
    except (Lost, DistError, RuntimeError, KeyboardInterrupt) as error:
        if _has_failed(member):
            _end_for_another(member)
        if not _is_about_others(error):
            raise
        print(f"thaw: process {member.rank}: {_reason(error)}", file=sys.__stderr__, flush=True)
        # At once, because exchanges that go on in threads would wait for their time-out.
        os._exit(ENDED)


def _is_first(member: Member, sentence: str) -> bool:
    """Whether this process failed first, with this sentence; so it is if the others cannot be asked."""
    try:
        is_first = member.fail()
        if is_first:
            launcher().refuse(sentence)
        # An error that leaves one block within another is met twice.
        if is_first and _hosts_store(member) and distributed.is_initialized():
            # Who waits for tensors ends at once; who then asks why could not, if this process had ended.
            distributed.destroy_process_group()
            member.wait_for_acknowledgements(LEAVE_SECONDS)
    except (DistError, RuntimeError):
        return True
    return is_first


def _hosts_store(member: Member) -> bool:
    """Whether the others lose the store when this process ends; torchrun keeps it itself."""
    return member.is_main and not launcher().keeps_store


def _end_for_another(member: Member) -> NoReturn:
    """End in silence, because another process failed first and says why."""
    with suppress(DistError, RuntimeError):
        member.acknowledge()
    launcher().refuse("another process has failed, and says why")
    raise SystemExit(USER_ERROR) from None


def _has_failed(member: Member) -> bool:
    try:
        return member.has_failed()
    except (DistError, RuntimeError):
        return False


def _is_about_others(error: BaseException) -> bool:
    """Whether an error comes from an exchange with the other processes; those of gloo have no type of their own."""
    return isinstance(error, Lost | DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _reason(error: BaseException) -> str:
    if isinstance(error, Lost):
        return str(error)
    return "another process has ended or hangs; if torchrun does not restart all, resume with --resume"
