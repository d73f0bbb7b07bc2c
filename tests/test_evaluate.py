"""Evaluation and test-time augmentation."""

import observed
import pytest
import tape
import torch
from torch import nn

from fastresnet.machine import precision
from fastresnet.settings import config
from fastresnet.training import evaluation
from fastresnet.training.evaluation import Evaluator, Tta

CPU = torch.device("cpu")
FP32 = precision.resolve("fp32", CPU)


class Corner(nn.Module):
    """Ten logits that depend on where things are: a fixed linear map of the pixels."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(10, 3 * 8 * 8, generator=generator))

    def forward(self, images):
        return images.flatten(1) @ self.weight.T


def images_and_labels(count=12):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, 8, 8, generator=generator).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(0, 10, (count,), generator=generator)


def predict(tta="none", share=1.0, pieces=5):
    images, labels = images_and_labels()
    batches = zip(images.split(pieces), labels.split(pieces))
    return evaluation.predict(Corner(), batches, precision=FP32, device=CPU, tta=tta, tta_share=share)


def test_logits_come_in_the_order_of_the_batches():
    images, labels = images_and_labels()
    logits, seen = predict()
    with torch.no_grad():
        torch.testing.assert_close(logits, Corner()(images))
    assert torch.equal(seen, labels)


def test_flip_averages_an_image_and_its_mirror():
    images, _ = images_and_labels()
    model = Corner()
    with torch.no_grad():
        expected = (model(images) + model(images.flip(-1))) / 2
    torch.testing.assert_close(predict("flip")[0], expected)


def test_crops_weigh_the_upright_pair_as_much_as_the_four_shifted_views():
    images, _ = images_and_labels()
    model = Corner()
    padded = nn.functional.pad(images, (1, 1, 1, 1), mode="reflect")
    views = [padded[:, :, :8, :8], padded[:, :, 2:, 2:]]
    with torch.no_grad():
        upright = (model(images) + model(images.flip(-1))) / 2
        shifted = sum(model(v) + model(v.flip(-1)) for v in views) / 4
    torch.testing.assert_close(predict("crops")[0], (upright + shifted) / 2)


def test_a_share_of_tta_goes_to_the_least_confident_images():
    plain, full = (predict(tta, pieces=12)[0] for tta in ("none", "flip"))
    part = predict("flip", share=0.25, pieces=12)[0]
    margin = plain.softmax(1).topk(2, dim=1).values
    doubtful = set((margin[:, 0] - margin[:, 1]).argsort()[:3].tolist())
    for row in range(12):
        torch.testing.assert_close(part[row], (full if row in doubtful else plain)[row])


def test_where_there_is_but_one_class_any_image_is_the_least_confident():
    model, batch = nn.Sequential(nn.Flatten(), nn.Linear(192, 1)), images_and_labels()
    logits, _ = evaluation.predict(model, [batch], precision=FP32, device=CPU, tta="flip", tta_share=0.5)
    assert logits.shape == (12, 1)


def test_no_share_means_plain_logits():
    torch.testing.assert_close(predict("crops", share=0.0)[0], predict()[0])


def test_score_counts_right_answers_and_mean_cross_entropy():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5]])
    score = evaluation.score(logits, torch.tensor([0, 1, 1, 1]))
    assert score.accuracy == 0.75
    assert score.loss == pytest.approx(nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1, 1])).item())


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="empty"):
        evaluation.predict(Corner(), [], precision=FP32, device=CPU)


def test_an_unknown_tta_is_refused():
    with pytest.raises(ValueError, match=r"eval\.tta"):
        evaluation.predict(Corner(), [], precision=FP32, device=CPU, tta="more")


def test_batch_norm_uses_its_running_statistics():
    model = nn.Sequential(nn.BatchNorm2d(3), Corner())
    images, labels = images_and_labels()
    before = model[0].running_mean.clone()
    evaluation.predict(model, [(images, labels)], precision=FP32, device=CPU)
    assert torch.equal(before, model[0].running_mean)


def test_the_views_of_an_image_are_counted_with_their_share():
    assert [Tta(mode, 0.25).views for mode in ("none", "flip", "crops")] == [1, 1.25, 2.25]


SMALL = {
    "model.arch": "speednet", "model.stage_widths": [8, 8, 8], "train.precision": "fp32", "run.device": "cpu",
    "run.threads": 1, "train.batch_size": 8, "eval.batch_size": 90, "eval.tta_share": 0.25,
}  # fmt: skip


def test_a_captured_evaluation_follows_the_weights_and_reads_batches_where_they_are_made(monkeypatch):
    """200 test images in batches of 90, 90 and 20; the last is a graph of its own."""
    monkeypatch.setattr("fastresnet.training.capture.recorded", tape.recorded)
    with observed.experiment(config.load(None, SMALL)) as one:
        plain, placed = one.evaluator, []
        captured = Evaluator(one.model, precision=one.precision, device=one.device, cuda_graph=True)
        replayed = captured._logits

        def watched(images, tta):
            placed.append(any(images is graph.inputs[0] for graph in captured._graphs.values()))
            return replayed(images, tta)

        captured._logits = watched
        for tta in ("none", "crops", "none", "crops"):
            one.evaluator = plain
            wanted = one.predict("test", tta)
            one.evaluator = captured
            assert observed.same(one.predict("test", tta), wanted)
            with torch.no_grad():
                one.model.head.weight.mul_(-1.5)
    first, again = [False, True, False], [True, True, True]
    assert placed == 2 * first + 2 * again and len(captured._graphs) == 4
