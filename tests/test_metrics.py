"""The metrics against scikit-learn, and against cases small enough to count by hand."""

import json

import numpy as np
import pytest
import torch

from fastresnet.reports import metrics

NAMES = ["ant", "bee", "cat", "dog"]


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 500)
    logits = rng.normal(size=(500, 4))
    logits[np.arange(500), labels] += 1.2
    return logits, labels


def test_precision_recall_and_f1_agree_with_scikit_learn(predictions):
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the oracle here")
    logits, labels = predictions
    result = metrics.evaluation(logits, labels, NAMES)
    expected = sklearn.precision_recall_fscore_support(labels, logits.argmax(1), zero_division=0)
    for key, column in zip(["precision", "recall", "f1", "support"], expected, strict=True):
        assert np.allclose([row[key] for row in result["per_class"]], column, atol=1e-12)
    assert result["confusion"] == sklearn.confusion_matrix(labels, logits.argmax(1)).tolist()
    assert result["loss"] == pytest.approx(sklearn.log_loss(labels, metrics.softmax(logits)), abs=1e-12)
    assert result["top1"] == sklearn.accuracy_score(labels, logits.argmax(1))


def test_top_k_agrees_with_scikit_learn(predictions):
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the oracle here")
    logits, labels = predictions
    for k in (1, 2, 3):
        expected = sklearn.top_k_accuracy_score(labels, logits, k=k)
        assert metrics.top_k_correct(logits, labels, k).mean() == pytest.approx(expected)


def test_a_network_that_answers_the_same_for_every_class_is_not_counted_as_right():
    labels = np.array([0, 1, 2, 3])
    assert metrics.top_k_correct(np.zeros((4, 4)), labels, 2).tolist() == [True, True, False, False]


def test_wilson_interval_matches_the_textbook_and_stays_between_zero_and_one():
    low, high = metrics.wilson_interval(9400, 10000)
    assert (low, high) == pytest.approx((0.935174, 0.944487), abs=1e-6)  # statsmodels proportion_confint
    scipy = pytest.importorskip("scipy.stats", reason="SciPy is the oracle here")
    oracle = scipy.binomtest(37, 50).proportion_ci(method="wilson")
    assert metrics.wilson_interval(37, 50) == pytest.approx((oracle.low, oracle.high), abs=1e-12)
    assert metrics.wilson_interval(0, 10)[0] == 0.0
    assert metrics.wilson_interval(10, 10)[1] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="total > 0"):
        metrics.wilson_interval(0, 0)


def test_calibration_error_of_a_case_counted_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    labels = np.array([0, 1, 0, 1])
    result = metrics.calibration(probabilities, labels, bins=10)
    # two images at confidence 0.9, half right (gap 0.4); two at 0.6, both right (gap 0.4)
    assert result["ece"] == pytest.approx(0.4)
    assert [row["count"] for row in result["bins"]] == [0, 0, 0, 0, 0, 2, 0, 0, 2, 0]
    assert result["bins"][0]["accuracy"] is None


def test_a_perfectly_sure_and_right_network_has_no_calibration_error():
    result = metrics.calibration(np.eye(3), np.arange(3))
    assert result["ece"] == 0.0 and result["bins"][-1]["count"] == 3


def test_most_confused_pairs_count_both_directions():
    confusion = np.array([[5, 2, 0], [1, 5, 0], [0, 1, 5]])
    pairs = metrics.most_confused(confusion, ["a", "b", "c"])
    assert pairs[0] == {"classes": ["a", "b"], "mistakes": 3, "first_as_second": 2, "second_as_first": 1}
    assert [pair["mistakes"] for pair in pairs] == [3, 1]


def test_worst_images_are_wrong_and_sorted_by_confidence(predictions):
    logits, labels = predictions
    worst = metrics.evaluation(logits, labels, NAMES, worst=10)["worst"]
    assert len(worst) == 10 and all(row["label"] != row["predicted"] for row in worst)
    confidences = [row["confidence"] for row in worst]
    assert confidences == sorted(confidences, reverse=True)
    assert worst[0]["label"] == labels[worst[0]["index"]]


def test_a_class_nobody_predicts_gets_zero_and_no_warning():
    result = metrics.evaluation(np.array([[1.0, 0, 0], [1.0, 0, 0]]), np.array([0, 1]), ["a", "b", "c"])
    assert result["per_class"][1]["precision"] == 0.0 and result["per_class"][2]["support"] == 0
    assert metrics.normalised(np.array(result["confusion"]))[2].tolist() == [0, 0, 0]


def test_huge_logits_do_not_overflow():
    result = metrics.evaluation(np.array([[1e4, -1e4], [-1e4, 1e4]]), np.array([0, 0]), ["a", "b"])
    assert result["loss"] == pytest.approx(1e4)


def test_tensors_are_taken_and_the_result_is_json(predictions):
    logits, labels = predictions
    result = metrics.evaluation(torch.from_numpy(logits), torch.from_numpy(labels), NAMES)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(("logits", "labels", "names", "message"), [
    (np.zeros((3, 4)), np.zeros(2, int), NAMES, "got \\(3, 4\\) and \\(2,\\)"),
    (np.zeros((0, 4)), np.zeros(0, int), NAMES, "N > 0"),
    (np.zeros((2, 4)), np.zeros(2, int), NAMES[:3], "4 classes, the data has 3"),
    (np.zeros((2, 4)), np.array([0, 4]), NAMES, "labels must lie in 0..3, got 0..4"),
    (np.full((2, 4), np.nan), np.zeros(2, int), NAMES, "2 of 2 images .* diverged"),
])  # fmt: skip
def test_predictions_that_do_not_fit_are_named(logits, labels, names, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluation(logits, labels, names)
