"""What a classifier's logits say about it: accuracy with its interval, calibration, confusions, mistakes.

Small and exact, in float64: scikit-learn and SciPy would be 190 MB more to install and lack the calibration
error; they are the oracles in the tests. Runs no model, draws nothing.
Accuracies are shares between 0 and 1. Rows of a confusion matrix are true classes, columns predicted ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict, cast

import numpy as np
import torch
import torch.nn.functional as F

Z_95 = 1.959963984540054  # two-sided 95 % quantile of the standard normal distribution
CALIBRATION_BINS = 15  # as in Guo et al. 2017, "On Calibration of Modern Neural Networks"


# A class's precision, recall and F1 (shares) and its images, under the key that JSON has for them.
PerClass = TypedDict(
    "PerClass", {"class": str, "precision": float, "recall": float, "f1": float, "support": int}
)


class Bin(TypedDict):
    """Images whose confidence is in (low, high], their mean confidence and accuracy; None without any."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


class Calibration(TypedDict):
    """ece: expected calibration error; max_error: the largest gap of a bin."""

    ece: float
    max_error: float
    bins: list[Bin]


class Confused(TypedDict):
    """Two classes taken for each other."""

    classes: list[str]
    mistakes: int
    first_as_second: int
    second_as_first: int


class Mistake(TypedDict):
    """A wrong answer: the image's index in the set, its label, what was said, and both probabilities."""

    index: int
    label: int
    predicted: int
    confidence: float
    probability_of_label: float


class Evaluation(TypedDict):
    """All that `evaluation` says of a set of predictions."""

    images: int
    class_names: list[str]
    correct: int
    top1: float
    top1_interval: list[float]
    top5: float
    loss: float
    per_class: list[PerClass]
    calibration: Calibration
    confusion: list[list[int]]
    most_confused: list[Confused]
    worst: list[Mistake]


def wilson_interval(correct: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval of a share (1927): holds near 0 and 1, where mean ± z·σ leaves [0, 1]."""
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"an interval needs 0 <= correct <= total and total > 0, got {correct} of {total}")
    share = correct / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def softmax(logits_NK: np.ndarray) -> np.ndarray:
    """Probabilities, float64 (N, K)."""
    return torch.tensor(logits_NK, dtype=torch.float64).softmax(1).numpy()


def cross_entropy(logits_NK: np.ndarray, labels_N: np.ndarray) -> float:
    """Mean negative log likelihood in nats, without label smoothing."""
    logits, labels = torch.tensor(logits_NK, dtype=torch.float64), torch.tensor(labels_N, dtype=torch.int64)
    return F.cross_entropy(logits, labels).item()


def top_k_correct(logits_NK: np.ndarray, labels_N: np.ndarray, k: int) -> np.ndarray:
    """Bool (N,): is the true class among the k largest logits?

    Ties go to the lower class, as in argmax: a network that answers the same for all isn't counted as right.
    """
    order_NK = np.argsort(-np.asarray(logits_NK, dtype=np.float64), axis=1, kind="stable")
    return cast(np.ndarray, (order_NK[:, :k] == np.asarray(labels_N)[:, None]).any(axis=1))


def confusion_matrix(predicted_N: np.ndarray, labels_N: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, int64 (K, K): [true, predicted]."""
    flat = np.asarray(labels_N, dtype=np.int64) * num_classes + np.asarray(predicted_N, dtype=np.int64)
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def normalised(confusion_KK: np.ndarray) -> np.ndarray:
    """Each row divided by its sum, float64: where a true class went, in shares. An empty class stays zero."""
    totals = confusion_KK.sum(axis=1, keepdims=True)
    return cast(
        np.ndarray, np.divide(confusion_KK, totals, out=np.zeros(confusion_KK.shape), where=totals > 0)
    )


def per_class(confusion_KK: np.ndarray, class_names: Sequence[str]) -> list[PerClass]:
    """Precision, recall, F1 (shares) and support (images) of each class; 0 where a denominator is 0."""
    right = np.diag(confusion_KK).astype(np.float64)
    support, chosen = confusion_KK.sum(axis=1), confusion_KK.sum(axis=0)
    precision = right / np.maximum(chosen, 1)
    recall = right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + chosen, 1)
    return [
        {
            "class": name,
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(class_names)
    ]


def calibration(
    probabilities_NK: np.ndarray, labels_N: np.ndarray, bins: int = CALIBRATION_BINS
) -> Calibration:
    """Expected calibration error (Naeini 2015, Guo 2017) and the reliability diagram behind it.

    Equal-width bins (low, high] of the confidence in the predicted class; `ece` is the mean of
    |accuracy - confidence| weighted by the images in a bin, `max_error` the largest of them.
    """
    confidence_N = probabilities_NK.max(axis=1)
    correct_N = probabilities_NK.argmax(axis=1) == labels_N
    which_N = np.clip(np.ceil(confidence_N * bins).astype(int) - 1, 0, bins - 1)
    counts, sure, right = (np.bincount(which_N, each, bins) for each in (None, confidence_N, correct_N))
    rows: list[Bin] = [
        {
            "low": index / bins,
            "high": (index + 1) / bins,
            "count": int(count),
            "confidence": float(sure[index] / count) if count else None,
            "accuracy": float(right[index] / count) if count else None,
        }
        for index, count in enumerate(counts)
    ]
    gaps = np.abs(right - sure)
    return {
        "ece": float(gaps.sum() / len(labels_N)),
        "max_error": float((gaps / np.maximum(counts, 1)).max()),
        "bins": rows,
    }


def most_confused(confusion_KK: np.ndarray, class_names: Sequence[str], count: int = 10) -> list[Confused]:
    """The pairs of classes mistaken for each other most often, both directions together, largest first."""
    both = confusion_KK + confusion_KK.T
    pairs = [(int(both[i, j]), i, j) for i in range(len(both)) for j in range(i + 1, len(both)) if both[i, j]]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return [
        {
            "classes": [class_names[i], class_names[j]],
            "mistakes": mistakes,
            "first_as_second": int(confusion_KK[i, j]),
            "second_as_first": int(confusion_KK[j, i]),
        }
        for mistakes, i, j in pairs[:count]
    ]


def most_confidently_wrong(
    probabilities_NK: np.ndarray, labels_N: np.ndarray, count: int = 24
) -> list[Mistake]:
    """The wrong answers given with the greatest probability, the surest first."""
    predicted_N = probabilities_NK.argmax(axis=1)
    wrong = np.flatnonzero(predicted_N != labels_N)
    order = wrong[np.argsort(-probabilities_NK[wrong, predicted_N[wrong]], kind="stable")][:count]
    return [
        {
            "index": int(i),
            "label": int(labels_N[i]),
            "predicted": int(predicted_N[i]),
            "confidence": float(probabilities_NK[i, predicted_N[i]]),
            "probability_of_label": float(probabilities_NK[i, labels_N[i]]),
        }
        for i in order
    ]


def evaluation(logits_NK: Any, labels_N: Any, class_names: Sequence[str], *, worst: int = 24) -> Evaluation:
    """Everything above about one set of predictions, as plain data that JSON can hold.

    logits_NK: float (N, K), tensor or array; labels_N: integers (N,) in 0..K-1; class_names: K names.
    Raises ValueError where those don't fit together or the logits aren't finite.
    """
    logits, labels = _checked(logits_NK, labels_N, class_names)
    probabilities = softmax(logits)
    confusion = confusion_matrix(logits.argmax(axis=1), labels, len(class_names))
    correct, total = int(np.trace(confusion)), len(labels)
    top5 = min(5, len(class_names))
    return {
        "images": total,
        "class_names": list(class_names),
        "correct": correct,
        "top1": correct / total,
        "top1_interval": list(wilson_interval(correct, total)),
        "top5": float(top_k_correct(logits, labels, top5).mean()),
        "loss": cross_entropy(logits, labels),
        "per_class": per_class(confusion, class_names),
        "calibration": calibration(probabilities, labels),
        "confusion": confusion.tolist(),
        "most_confused": most_confused(confusion, class_names),
        "worst": most_confidently_wrong(probabilities, labels, worst),
    }


def _checked(logits_NK: Any, labels_N: Any, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = np.asarray(logits_NK, dtype=np.float64), np.asarray(labels_N)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"logits must be (N, K) and labels (N,), N > 0; got {logits.shape} and {labels.shape}"
        )
    if logits.shape[1] != len(class_names):
        raise ValueError(f"the model answers for {logits.shape[1]} classes, the data has {len(class_names)}")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(f"labels must lie in 0..{logits.shape[1] - 1}, got {labels.min()}..{labels.max()}")
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits)).any(axis=1).sum())
        raise ValueError(
            f"{bad} of {len(logits)} images have logits that aren't finite: has training diverged?"
        )
    return logits, labels
