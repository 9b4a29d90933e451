import pytest

from thaw.cores import worker_count


def test_an_environment_variable_limits_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THAW_CORES", raising=False)
    here = worker_count()
    for given, expected in (("1", 1), ("100000", here), ("0", here), ("many", here), ("", here)):
        monkeypatch.setenv("THAW_CORES", given)
        assert worker_count() == expected
