"""What a set of samples says, held to printed tables and to simulation."""

import random

import pytest

from fastresnet.base import statistics


def test_quantiles_interpolate():
    six = statistics.quantiles([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    assert six == {"median": 3.5, "p20": 2.0, "p80": 5.0, "n": 6}
    assert statistics.quantiles([7.0]) == {"median": 7.0, "p20": 7.0, "p80": 7.0, "n": 1}
    with pytest.raises(ValueError, match="at least one sample"):
        statistics.quantiles([])


@pytest.mark.parametrize("degrees, level, quantile", [  # Student's table
    (1, 0.975, 12.7062),
    (2, 0.975, 4.30265),
    (5, 0.95, 2.01505),
    (10, 0.975, 2.22814),
    (199, 0.975, 1.97196),
])  # fmt: skip
def test_students_t_agrees_with_the_printed_table(degrees, level, quantile):
    assert statistics.student_t_quantile(level, degrees) == pytest.approx(quantile, rel=1e-5)
    assert statistics.student_t_cdf(quantile, degrees) == pytest.approx(level, abs=1e-5)
    assert statistics.student_t_cdf(-quantile, degrees) == pytest.approx(1 - level, abs=1e-5)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = random.Random(0)
    covered = 0
    for _ in range(1000):
        mean, _, half_width = statistics.spread([rng.gauss(5, 2) for _ in range(6)])
        covered += abs(mean - 5) <= half_width
    assert 930 <= covered <= 970


def test_one_run_says_nothing_about_its_spread():
    assert statistics.spread([3.0]) == (3.0, None, None) and statistics.spread([]) == (None, None, None)


def test_the_p_value_is_small_only_above_the_target():
    samples = [94.1, 94.2, 94.0, 94.15, 94.05]
    assert statistics.p_value_mean_above(samples, 93.9) < 0.01
    assert statistics.p_value_mean_above(samples, 94.1) == pytest.approx(0.5)
    assert statistics.p_value_mean_above([95.0, 95.0], 94.0) == 0.0
    with pytest.raises(ValueError, match="two samples"):
        statistics.p_value_mean_above([94.0], 94.0)


def test_two_runs_that_agree_to_the_image_prove_no_more_than_their_resolution():
    alike = [0.9401, 0.9401]
    assert statistics.p_value_mean_above(alike, 0.94) == 0.0
    on_a_grid = statistics.p_value_mean_above(alike, 0.94, 1e-4)  # t = sqrt(2) of one degree
    assert on_a_grid == pytest.approx(0.19591, abs=1e-5)
    assert statistics.spread(alike, 1e-4) == (0.9401, 0.0, pytest.approx(12.7062e-4 / 2**0.5))


def test_pairs_are_tested_by_their_differences_and_no_closer_than_their_resolution():
    assert statistics.p_value_paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx(0.07418, abs=1e-5)
    assert statistics.p_value_paired([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == pytest.approx(0.07418, abs=1e-5)
    assert statistics.p_value_paired([1.0, 2.0], [1.0, 2.0]) == 1.0
    assert statistics.p_value_paired([1.25, 2.25], [1.0, 2.0]) == 0.0
    on_a_grid = statistics.p_value_paired([1.25, 2.25], [1.0, 2.0], 0.25)  # t = sqrt(2) of one degree
    assert on_a_grid == pytest.approx(0.39183, abs=1e-5)
    with pytest.raises(ValueError, match="two pairs, got 1"):
        statistics.p_value_paired([1.0], [2.0])


@pytest.mark.parametrize("degrees", [1, 2, 3, 8, 31, 199])
def test_students_t_is_scipys(degrees):
    oracle = pytest.importorskip("scipy.stats", reason="SciPy is the oracle here").t(degrees)
    for t in (-30.0, -2.5, -0.1, 0.0, 0.7, 4.0):
        assert statistics.student_t_cdf(t, degrees) == pytest.approx(oracle.cdf(t), abs=1e-12)
    for share in (0.001, 0.05, 0.5, 0.9, 0.975, 0.9999):
        assert statistics.student_t_quantile(share, degrees) == pytest.approx(oracle.ppf(share), abs=1e-8)
