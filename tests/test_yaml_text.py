"""YAML that a person writes means what it says."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from thaw.yaml_text import read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("2024-02-30", "2024-02-30"),
        ("no", "no"),
        ("010", 10),
        ("1e-5", 1e-5),
        ("-.5E+1", -5.0),
        (".inf", float("inf")),
        ("true", True),
        ("~", None),
        ("", None),
        ("{no: 1, 007: {on: 2}, 2024-01-01: 3}", {"no": 1, "007": {"on": 2}, "2024-01-01": 3}),
        ("a: &x {c: 1, d: 2}\nb: {<<: *x, c: 3}", {"a": {"c": 1, "d": 2}, "b": {"c": 3, "d": 2}}),
    ],
)
def test_a_value_is_what_it_looks_like(text: str, value: object) -> None:
    assert read_yaml(text) == value


@pytest.mark.parametrize("text", ["seed: 1\nseed: 2", "{a: {b: 1, b: 1}}"])
def test_a_key_that_is_there_twice_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match="is there twice"):
        read_yaml(text)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(["no", "1e5", "1:30", "010", "=", "<<", "~", "2024-01-01", "0x1F", "1_000", "yes", ".inf"])
)


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text() | SCALARS.map(str), inner)))
def test_what_is_written_is_read_back(values: object) -> None:
    assert read_yaml(write_yaml(values)) == values


@given(st.text() | st.sampled_from(["no", "1e5", "010", "2024-01-01", "0x1F", "1_000", "yes"]))
def test_text_that_is_written_is_text_for_other_readers_too(text: str) -> None:
    assert yaml.safe_load(write_yaml([text])) == [text]


def test_what_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        read_yaml("[" * 5000)
