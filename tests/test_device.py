import ctypes
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from thaw.device import (
    choose_device,
    current_on,
    describe_machine,
    device_name,
    free_bytes,
    generators_restored,
    keep_freed_memory,
    seed_generators,
    synchronize,
    to_device,
)
from thaw.errors import RecipeError

FAULTS = """
import resource
import torch
from thaw.device import keep_freed_memory
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def use():
    for _ in range(10):
        float(torch.ones(10_000_000).sum())
def faults_of_use():
    use()
    before = faults()
    use()
    return faults() - before
returned = faults_of_use()
keep_freed_memory()
print(returned, faults_of_use())
"""


def install(monkeypatch: pytest.MonkeyPatch, accelerator: str | None, count: int = 0, name: str = "") -> list[str]:
    """Pretend that PyTorch sees these accelerators; gives the devices that are synchronised, as they come."""
    device = None if accelerator is None else torch.device(accelerator)
    synchronised: list[str] = []
    module = SimpleNamespace(get_device_name=lambda _: name) if name else SimpleNamespace()
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: device)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: synchronised.append(str(device)))
    monkeypatch.setattr(torch, "get_device_module", lambda _: module)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda _: None)
    return synchronised


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_values_on_another_device_are_the_same_and_go_to_a_gpu_from_pinned_memory(
    monkeypatch: pytest.MonkeyPatch, order: torch.memory_format
) -> None:
    values = torch.randn(2, 3, 4, 4).to(memory_format=order)
    assert to_device(values, torch.device("cpu")) is values
    assert to_device(values.numpy(), torch.device("cpu")).equal(values)
    copied: list[tuple[str, object]] = []
    pinned = SimpleNamespace(to=lambda device, **how: copied.append((str(device), how)))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned)
    to_device(values, torch.device("cuda", 1))
    assert copied == [("cuda:1", {"non_blocking": True})]


@pytest.mark.parametrize(
    ("accelerator", "name", "reason"),
    [
        ("cuda", "NVIDIA H100", "found NVIDIA H100"),
        ("xpu", "Intel Arc", "found Intel Arc"),
        ("mps", "", "found mps device"),
    ],
)
def test_auto_is_the_accelerator_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, name: str, reason: str
) -> None:
    install(monkeypatch, accelerator, 1, name)
    chosen = choose_device("auto")
    assert (str(chosen.device), chosen.reason) == (accelerator, reason)
    assert describe_machine(chosen.device)["accelerator"] == device_name(chosen.device)


def test_a_device_that_is_named_by_its_number_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "xpu", 2)
    current: list[int] = []
    monkeypatch.setattr(torch.accelerator, "set_device_index", current.append)
    for wanted in ("xpu", "auto", "cpu", "cpu:0", "xpu:1"):
        choose_device(wanted)
    assert current == [1]


def test_the_stream_is_the_one_before_where_a_capture_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    streams, devices = ["before"], []

    @contextmanager
    def on(device: torch.device) -> Iterator[None]:
        devices.append(str(device))
        yield

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: streams[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    with pytest.raises(RuntimeError, match="broken"), current_on(torch.device("cuda:1")):
        streams.append("of the capture")
        raise RuntimeError("broken")
    assert streams[-1] == "before" and devices == ["cuda:1"]
    with current_on(torch.device("cpu")):
        assert devices == ["cuda:1"]


def test_only_the_generators_of_the_cpu_and_of_the_device_are_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch, "get_device_module", lambda _: SimpleNamespace(manual_seed=seeded.append))
    monkeypatch.setattr(torch, "manual_seed", lambda _: pytest.fail("seeds all devices"))
    with generators_restored(torch.device("cpu")):
        seed_generators(3, torch.device("cpu"))
        assert not seeded
        seed_generators(4, torch.device("xpu"))
        assert seeded == [4] == [torch.initial_seed()]


def test_memory_that_a_device_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_memory(device: torch.device) -> tuple[int, int]:
        raise RuntimeError("The device doesn't support querying the available free memory.")

    monkeypatch.setattr(torch, "get_device_module", lambda _: SimpleNamespace(mem_get_info=get_memory))
    assert free_bytes(torch.device("xpu")) == 0


def test_auto_is_the_cpu_without_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    chosen = choose_device("auto")
    assert str(chosen.device) == "cpu" and re.fullmatch(r"no accelerator found; \d+ cores?", chosen.reason)
    assert "accelerator" not in describe_machine(chosen.device)


@pytest.mark.parametrize("wanted", ["cpu", "cpu:0", "xpu", "xpu:0", "xpu:1"])
def test_a_device_that_is_here_is_taken(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    install(monkeypatch, "xpu", 2)
    assert str(choose_device(wanted).device) == wanted


@pytest.mark.parametrize("wanted", ["cuda", "xpu:2", "cpu:1", "mps", "meta", "gpu", "xpu:x"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    install(monkeypatch, "xpu", 2)
    expected = f"device: {wanted} is not here; choose auto or one of cpu:0, xpu:0, xpu:1"
    with pytest.raises(RecipeError, match=re.escape(expected)):
        choose_device(wanted)


def test_only_an_accelerator_is_synchronised(monkeypatch: pytest.MonkeyPatch) -> None:
    synchronised = install(monkeypatch, "mps", 1)
    synchronize(torch.device("cpu"))
    synchronize(torch.device("mps"))
    assert synchronised == ["mps"]


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_memory_that_is_reused_is_not_returned_to_the_kernel() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    returned, kept = map(int, done.stdout.split())
    assert kept * 2 < returned


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    keep_freed_memory()
