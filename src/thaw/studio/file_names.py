"""Names that files and folders cannot have on Windows."""

from __future__ import annotations

NOT_IN_NAMES = '<>:"|?*'
"""What no name contains there."""

_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


def is_device(name: str) -> bool:
    """Whether a name, with any suffix, is that of a device there."""
    return name.partition(".")[0].rstrip(" ").lower() in _DEVICES
