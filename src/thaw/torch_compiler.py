"""PyTorch's compiler is not imported with timm, but when something needs it: that takes 1.6 s, of a command of 9 s.

torchvision and timm take one function each of it as they are imported, for which there are stand-ins. L-BFGS and what
counts multiply-adds import it to be left alone by it, and are left alone without. So are AdamW and the like, whose
steps `thaw.training.optimizer.step` takes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

_PACKAGE, _UTILS = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def compiler_deferred() -> Iterator[None]:
    """Within the block libraries are imported without the compiler, where it has not been imported yet."""
    if _PACKAGE in sys.modules:
        yield
        return
    package = _StandIn(_PACKAGE, disable=_disable)
    # For submodules that nothing stands in for.
    package.__path__ = [str(Path(torch.__file__).parent / "_dynamo")]
    utils = _StandIn(_UTILS, is_compile_supported=_is_compile_supported)
    sys.modules |= {_PACKAGE: package, _UTILS: utils}
    try:
        yield
    finally:
        _remove_stand_ins()
        leave_alone(torch.optim.Optimizer)


class _StandIn(ModuleType):
    """A module with some functions; any other makes way for the module that it stands in for."""

    def __init__(self, name: str, **functions: Callable[..., Any]) -> None:
        super().__init__(name)
        vars(self).update(functions)

    def __getattr__(self, name: str) -> Any:
        # What the import system asks of every module.
        if name.startswith("__"):
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


def _remove_stand_ins() -> None:
    for name in (_PACKAGE, _UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]
    if isinstance(vars(torch).get("_dynamo"), _StandIn):
        del torch._dynamo


def _disable(function: Any = None, *_: Any, **__: Any) -> Any:
    """As `torch._dynamo.disable` for what Thaw never compiles: the rotary position embeddings of timm's NaFlexViT."""
    return (lambda decorated: decorated) if function is None else function


def _is_compile_supported(device_type: str) -> bool:
    found: bool = importlib.import_module(_UTILS).is_compile_supported(device_type)
    return found


def leave_alone(kind: type) -> None:
    """Let methods of a class be called as they are that would import the compiler only to be left alone by it."""
    for method in vars(kind).values():
        code, wrapped = getattr(method, "__code__", None), getattr(method, "__wrapped__", None)
        if wrapped is not None and code is not None and Path(code.co_filename).name == "_compile.py":
            wrapped.__dynamo_disable = wrapped
