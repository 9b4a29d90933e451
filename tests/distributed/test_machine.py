import os
import sys
import threading

import pytest
import torch

from thaw.distributed.machine import more_devices, use_own_part
from thaw.errors import RecipeError
from thaw.processes import Process


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    chosen: list[int] = []
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    monkeypatch.setattr("thaw.distributed.machine.use_own_cores", lambda index, here: None)
    return chosen


def test_each_process_takes_its_own_gpu(two_gpus: list[int]) -> None:
    for rank in range(2):
        use_own_part(Process(rank, 2), "auto")
    use_own_part(Process(1, 2), "cpu")
    assert two_gpus == [0, 1]


def test_fewer_gpus_than_processes_are_refused(two_gpus: list[int]) -> None:
    with pytest.raises(RecipeError, match="3 processes need as many GPUs, but this machine has 2; start 2"):
        use_own_part(Process(0, 3), "auto")


def test_a_machine_without_gpus_is_not_told_to_start_fewer_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 0)
    with pytest.raises(RecipeError, match="2 processes need as many GPUs, but this machine has none; set device: cpu"):
        use_own_part(Process(0, 2), "cuda")


def test_a_single_gpu_for_all_processes_is_refused(two_gpus: list[int]) -> None:
    with pytest.raises(RecipeError, match=r"cuda:1 is a single one, but each of 2 processes needs its own; set cuda"):
        use_own_part(Process(0, 2), "cuda:1")


def test_a_machine_with_several_gpus_is_told_how_to_use_them(two_gpus: list[int]) -> None:
    assert more_devices("auto").startswith("this machine has 2 GPUs") and "--processes auto" in more_devices("cuda")
    assert more_devices("cpu") == more_devices("cuda:1") == ""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are bound to cores on Linux only")
def test_processes_divide_the_cores_among_them() -> None:
    cores, found = sorted(os.sched_getaffinity(0)), []

    def divide() -> None:
        # In a thread, because it stays on its cores.
        for rank in range(2):
            os.sched_setaffinity(0, cores)
            use_own_part(Process(rank, 2), "cpu")
            found.append((sorted(os.sched_getaffinity(0)), torch.get_num_threads()))

    threads = torch.get_num_threads()
    thread = threading.Thread(target=divide)
    thread.start()
    thread.join()
    torch.set_num_threads(threads)
    assert all(len(own) == count for own, count in found)
    if len(cores) > 1:
        assert sorted(found[0][0] + found[1][0]) == cores
