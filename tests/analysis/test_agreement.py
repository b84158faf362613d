import krippendorff
import numpy as np
import pytest

from trace_jax.analysis.agreement import MISSING, krippendorff_alpha


@pytest.mark.parametrize("seed", range(20))
def test_alpha_equals_the_reference_package_on_random_labels_with_gaps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    runs, units = int(rng.integers(2, 12)), int(rng.integers(5, 60))
    truth = rng.integers(0, 3, size=units)
    labels = np.where(rng.random((runs, units)) < 0.7, truth, rng.integers(0, 3, size=(runs, units)))
    labels[rng.random((runs, units)) < 0.3] = MISSING
    known = np.where(labels == MISSING, np.nan, labels.astype(float))
    expected = krippendorff.alpha(reliability_data=known, level_of_measurement="nominal")
    assert krippendorff_alpha(labels) == pytest.approx(expected, abs=1e-12)


def test_alpha_of_the_published_example() -> None:
    """Krippendorff (2011), section D: four observers, twelve units, nominal data: 0.743."""
    rows = (
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    )
    labels = np.array([[MISSING if cell == "." else int(cell) for cell in row.split()] for row in rows])
    assert krippendorff_alpha(labels) == pytest.approx(0.743, abs=5e-4)


def test_alpha_is_none_where_labels_never_vary_or_never_meet() -> None:
    assert krippendorff_alpha(np.ones((4, 7), dtype=int)) is None
    assert krippendorff_alpha(np.array([[1, MISSING], [MISSING, 2]])) is None
    assert krippendorff_alpha(np.full((3, 3), MISSING)) is None
