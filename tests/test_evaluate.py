"""Evaluation and test-time augmentation."""

import pytest
import torch
from torch import nn

from fastresnet.machine import precision
from fastresnet.training import evaluation

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
    return evaluation.predict(
        Corner(),
        zip(images.split(pieces), labels.split(pieces)),
        precision=FP32,
        device=CPU,
        tta=tta,
        tta_share=share,
    )


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
    plain, full, part = (
        predict(pieces=12)[0],
        predict("flip", pieces=12)[0],
        predict("flip", share=0.25, pieces=12)[0],
    )
    margin = plain.softmax(1).topk(2, dim=1).values
    doubtful = set((margin[:, 0] - margin[:, 1]).argsort()[:3].tolist())
    for row in range(12):
        torch.testing.assert_close(part[row], (full if row in doubtful else plain)[row])


def test_no_share_means_plain_logits():
    torch.testing.assert_close(predict("crops", share=0.0)[0], predict()[0])


def test_score_counts_right_answers_and_mean_cross_entropy():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5]])
    score = evaluation.score(logits, torch.tensor([0, 1, 1, 1]))
    assert score.accuracy == 0.75 and score.count == 4
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
