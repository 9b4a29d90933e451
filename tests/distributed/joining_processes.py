"""Pairs of forked processes, each of which does what a case says, all at once, as importing PyTorch takes longest.

python -m tests.distributed.joining_processes TAKEN

TAKEN is a port that is in use. Prints the exit codes and what each process wrote, by case, as JSON.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from thaw.distributed import joining
from thaw.errors import ThawError
from thaw.processes import Process

COUNT = 2
PORT_IN_USE = "a port in use"
CASES = (
    "exchange",
    "error of the main process",
    "error in an inner block",
    "error of another process",
    "error while tensors are exchanged",
    "another version",
    "killed",
    PORT_IN_USE,
)


def behave(case: str, process: Process) -> None:
    if case == "error of the main process":
        process.from_main(lambda: fail("the main process cannot go on") if process.is_main else "")
    elif case == "error in an inner block":
        # As a function of Thaw that a command calls.
        with joining.joined() as inner:
            behave("error of the main process", inner)
    elif case == "error of another process":
        if not process.is_main:
            fail("process 1 cannot go on")
        process.barrier()
    elif case == "error while tensors are exchanged":
        if process.is_main:
            fail("the main process cannot go on")
        process.total(torch.ones(3))
    elif case == "killed":
        if not process.is_main:
            time.sleep(0.5)
            os.kill(os.getpid(), 9)
        process.total(torch.ones(3))
    elif case == "exchange":
        value = torch.full((2, 3), float(process.rank + 1))
        assert process.total(value.clone()).tolist() == [[3.0] * 3] * 2
        turned = value.T
        process.broadcast(turned)
        assert value.tolist() == [[1.0] * 3] * 2


def fail(sentence: str) -> str:
    raise ThawError(sentence)


def child(case: str, port: int, rank: int, output: Path) -> int:
    if started := os.fork():
        return started
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(COUNT)}
    os.environ["LOCAL_WORLD_SIZE"] = str(COUNT)
    joining.MEETING_SECONDS, joining.LEAVE_SECONDS = (2.0, 1.0) if case == PORT_IN_USE else (60.0, 20.0)
    stream = output.open("w", encoding="utf-8", buffering=1)
    sys.stderr = sys.__stderr__ = stream  # type: ignore[misc]
    code = 0
    try:
        if case == "another version":
            joining.__version__ = f"0.{rank}"  # type: ignore[attr-defined]
        with joining.joined() as process:
            behave(case, process)
    except ThawError as error:
        print(error, file=stream)
        code = joining.USER_ERROR
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException as error:
        print(repr(error), file=stream)
        code = 99
    os._exit(code)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def main() -> None:
    ports = [*free_ports(len(CASES) - 1), int(sys.argv[1])]
    with TemporaryDirectory() as folder:
        outputs = {(case, rank): Path(folder) / f"{rank} {case}.txt" for case in CASES for rank in range(COUNT)}
        started = time.monotonic()
        children = {
            child(case, port, rank, outputs[case, rank]): (case, rank)
            for case, port in zip(CASES, ports, strict=True)
            for rank in range(COUNT)
        }
        ended = {}
        for _ in children:
            process, status = os.wait()
            ended[children[process]] = os.waitstatus_to_exitcode(status), time.monotonic() - started
        found = {
            case: {
                "codes": [ended[case, rank][0] for rank in range(COUNT)],
                "said": [outputs[case, rank].read_text(encoding="utf-8").splitlines() for rank in range(COUNT)],
                "seconds": max(ended[case, rank][1] for rank in range(COUNT)),
            }
            for case in CASES
        }
        print(json.dumps(found))


if __name__ == "__main__":
    main()
