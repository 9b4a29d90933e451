"""Forked processes that join each other and do what CASE says; prints the exit codes and what each wrote, as JSON.

python -m tests.distributed.joining_processes CASE PORT
"""

import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from thaw.distributed import joining
from thaw.errors import ThawError
from thaw.processes import Process

COUNT = 2


def behave(case: str, process: Process) -> None:
    if case == "error of the main process":
        process.from_main(lambda: fail("the main process cannot go on") if process.is_main else "")
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


def child(case: str, rank: int, output: Path) -> int:
    if started := os.fork():
        return started
    os.environ["RANK"] = str(rank)
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


def main() -> None:
    case, port = sys.argv[1:]
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": str(COUNT)}
    os.environ["LOCAL_WORLD_SIZE"] = str(COUNT)
    joining.MEETING_SECONDS, joining.LEAVE_SECONDS = 5.0, 3.0
    with TemporaryDirectory() as folder:
        outputs = [Path(folder) / f"{rank}.txt" for rank in range(COUNT)]
        started = time.monotonic()
        children = [child(case, rank, output) for rank, output in enumerate(outputs)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in children]
        said = [output.read_text(encoding="utf-8").splitlines() for output in outputs]
        print(json.dumps({"codes": codes, "said": said, "seconds": time.monotonic() - started}))


if __name__ == "__main__":
    main()
