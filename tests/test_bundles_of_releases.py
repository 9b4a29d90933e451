from pathlib import Path

import numpy as np
import pytest

import thaw
from thaw.bundle import certified_bundle
from thaw.golden import golden_of

BUNDLES = sorted((Path(__file__).parent / "bundles").iterdir())


@pytest.mark.parametrize("bundle", BUNDLES, ids=[bundle.name for bundle in BUNDLES])
def test_a_bundle_of_any_release_loads_and_gives_what_it_gave(bundle: Path) -> None:
    classifier = certified_bundle(bundle)
    rows = thaw.predict(classifier, golden_of(bundle))
    assert len(rows) >= 6 and all(row.status == "ok" for row in rows)
    assert all(np.isclose(sum(row.probabilities), 1.0, atol=1e-5) for row in rows)


def test_the_first_release_is_kept() -> None:
    assert "0.1.0" in [bundle.name for bundle in BUNDLES]
