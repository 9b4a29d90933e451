"""YAML that a person writes: scalars as in the core schema of YAML 1.2, and keys as they are written.

YAML 1.1 reads `1:30` as 90, `010` as 8, `1e-5` as text, and the class names `no` and `on` as false and true.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_READ_BY_YAML_1_1 = {_TAG + kind for kind in ("bool", "int", "float", "timestamp", "value")}
_CORE = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+."),
)
"""Plain scalars that are no text: their kind, their form, and what they begin with."""


class _Loader(yaml.SafeLoader):
    """Reads plain values only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are text; raises `yaml.YAMLError` where one is there twice."""
        seen = set[str]()
        # Before merging adds pairs that those of the mapping replace.
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
            if key.tag != f"{_TAG}merge":
                key.tag = f"{_TAG}str"
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that either version of YAML would read as something else."""


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value)


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Otherwise some line breaks, such as U+0085, would come back as spaces.
    return dumper.represent_scalar(f"{_TAG}str", text, style=None if text.isprintable() else '"')


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _READ_BY_YAML_1_1]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _form, _first in _CORE:
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(_form), list(_first))
    _Dumper.add_implicit_resolver(_TAG + _kind, re.compile(_form), list(_first))
_Loader.add_constructor(f"{_TAG}int", _int)
_Dumper.add_representer(str, _text)


def read_yaml(text: str) -> Any:
    """The value of one document; raises `yaml.YAMLError` or `ValueError`.

    Example:
        >>> read_yaml("{no: 1e-3, 7: on}")
        {'no': 0.001, '7': 'on'}
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("values are nested too deeply") from None


def write_yaml(values: Any) -> str:
    """Text that `read_yaml` reads back to equal values, whose keys are text."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
