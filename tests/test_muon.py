"""Muon: orthogonal updates, momentum, renormalising; the same whatever the layout or the batching."""

from unittest import mock

import observed
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from fastresnet.bench.measuring.operators import Operations
from fastresnet.optim.muon import NEWTON_SCHULZ, Muon, orthogonal_updates, orthogonalized, renormalising
from fastresnet.settings import config


def singular_values(matrices):
    return torch.linalg.svdvals(matrices)


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 8, 8)])
def test_five_steps_bring_singular_values_near_one(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    values = singular_values(orthogonalized(matrices, 5))
    assert values.min() > 0.3 and values.max() < 1.3
    assert singular_values(matrices).max() / singular_values(matrices).min() > values.max() / values.min()


def test_the_directions_of_the_matrix_are_kept():
    torch.manual_seed(0)
    matrix = torch.randn(1, 12, 30)
    u, _, v = torch.linalg.svd(matrix[0], full_matrices=False)
    result = orthogonalized(matrix, 5)[0]
    core = u.T @ result @ v.T
    torch.testing.assert_close(core, torch.diag(core.diagonal()), atol=1e-4, rtol=0)


def test_matrices_of_a_batch_do_not_touch_each_other():
    torch.manual_seed(0)
    matrices = torch.randn(4, 10, 20) * torch.tensor([1e-3, 1.0, 10.0, 1e3])[:, None, None]
    together = orthogonalized(matrices, 3)
    for one, result in zip(matrices, together):
        torch.testing.assert_close(orthogonalized(one[None], 3)[0], result, rtol=1e-4, atol=1e-5)


def test_a_zero_gradient_gives_no_update_and_no_nan():
    assert orthogonalized(torch.zeros(1, 4, 6), 3).eq(0).all()


def stepped(filters, gradients, **options):
    parameters = [torch.nn.Parameter(f.clone(memory_format=torch.preserve_format)) for f in filters]
    muon = Muon(parameters, **{"lr": 0.1, "renormalize": (), **options})
    for round_of_gradients in gradients:
        for parameter, gradient in zip(parameters, round_of_gradients):
            parameter.grad = gradient.clone(memory_format=torch.preserve_format)
        muon.step()
    return [p.detach() for p in parameters], muon


def random_filters(*shapes):
    torch.manual_seed(1)
    return [torch.randn(shape) for shape in shapes]


def test_memory_layout_changes_nothing():
    shapes = [(8, 4, 3, 3), (8, 8, 3, 3), (8, 8, 3, 3), (10, 7)]
    filters, gradients = random_filters(*shapes), [random_filters(*shapes) for _ in range(3)]
    plain, _ = stepped(filters, gradients)
    last = [f.to(memory_format=torch.channels_last) if f.ndim == 4 else f for f in filters]
    other, _ = stepped(last, gradients)
    assert other[0].is_contiguous(memory_format=torch.channels_last)
    for a, b in zip(plain, other):
        torch.testing.assert_close(a, b)


def test_filters_are_renormalised_before_the_update_at_the_steps_asked_for():
    filters = random_filters((6, 4, 3, 3))
    still = [[torch.zeros_like(filters[0])]]
    (every,), _ = stepped(filters, still, renormalize=renormalising(10, 1, 0))
    assert every.norm().item() == pytest.approx(6**0.5, rel=1e-5)
    (never,), _ = stepped(filters, still, renormalize=renormalising(10, 0, 0))
    torch.testing.assert_close(never, filters[0])


def test_filters_of_one_height_share_a_batch_and_keep_their_own_updates():
    shapes = [(8, 4, 3, 3), (8, 8, 3, 3), (8, 3, 1, 1), (20, 2, 2, 2), (8, 30)]
    directions = random_filters(*shapes)
    together = orthogonal_updates(directions, 3, NEWTON_SCHULZ, torch.float32)
    apart = orthogonal_updates(directions, 3, NEWTON_SCHULZ, torch.float32, padded=False)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other)
    for direction, update in zip(directions, together):
        (alone,) = orthogonal_updates([direction], 3, NEWTON_SCHULZ, torch.float32)
        torch.testing.assert_close(update, alone, rtol=1e-4, atol=1e-5)


def test_compiled_the_updates_are_the_same_and_traced_once_for_all_steps():
    made = CompileCounterWithBackend("aot_eager")
    filters = random_filters((8, 4, 3, 3), (8, 8, 3, 3), (20, 2, 2, 2))
    gradients = [random_filters((8, 4, 3, 3), (8, 8, 3, 3), (20, 2, 2, 2)) for _ in range(4)]
    torch._dynamo.reset()
    fast, _ = stepped(
        filters, gradients, compile=lambda function: torch.compile(function, backend=made, dynamic=False)
    )
    plain, _ = stepped(filters, gradients)
    assert made.frame_count == 1
    for a, b in zip(fast, plain):
        torch.testing.assert_close(a, b)


def test_a_step_of_speednets_filters_takes_few_kernels():
    """Of 64/256/256 channels: two heights, so 3 iterations of 3 products each in two batches."""
    filters = random_filters((64, 24, 3, 3), (64, 64, 3, 3), (256, 64, 3, 3), *[(256, 256, 3, 3)] * 3)
    parameters = [torch.nn.Parameter(f.to(memory_format=torch.channels_last)) for f in filters]
    muon = Muon(parameters, lr=torch.tensor(0.1), capturable=True)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    muon.step()
    with Operations() as seen:
        muon.step()
    kernels = {name: work.calls for name, work in seen.kinds.items()}
    products = sum(count for name, count in kernels.items() if "bmm" in name)
    assert products == 18 and sum(kernels.values()) <= 60, kernels


@pytest.mark.parametrize("every, slower", [(1, 0), (2, 0), (3, 0), (2, 3.0)])
def test_capturable_steps_equal_ordinary_ones(every, slower):
    filters = random_filters((6, 4, 3, 3), (6, 6, 3, 3))
    gradients = [random_filters((6, 4, 3, 3), (6, 6, 3, 3)) for _ in range(9)]
    due = renormalising(9, every, slower)
    plain, _ = stepped(filters, gradients, renormalize=due)
    captured, _ = stepped(filters, gradients, renormalize=due, lr=torch.tensor(0.1), capturable=True)
    for a, b in zip(plain, captured):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name, products", [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_a_run_multiplies_matrices_in_its_own_precision(name, products):
    changes = {"optim.name": "muon", "run.device": "cpu", "train.batch_size": 8, "train.precision": name}
    with observed.experiment(config.load(None, changes)) as one:
        images, labels = next(one.batches(0))
        with Operations() as seen, mock.patch("torch.bmm", wraps=torch.bmm) as product:
            one.trainer.step(images, labels)
    assert "bmm" in seen.kinds and {call.args[0].dtype for call in product.call_args_list} == {products}


def test_vectors_are_refused():
    with pytest.raises(ValueError, match=r"Muon needs matrices or filters, got a parameter of shape \(3,\)"):
        Muon([torch.nn.Parameter(torch.zeros(3))])


def test_the_pauses_between_renormalisings_grow_with_the_share_of_the_run():
    due = [step + 1 for step, now in enumerate(renormalising(20, 2, 4.0)) if now]
    assert due == [2, 4, 7, 11, 16], "after 2 + int(4 * step / 20) steps each"
    assert renormalising(20, 3, 0.0) == [False, False, True] and renormalising(20, 0, 4.0) == []


def test_muon_by_itself_is_the_muon_of_the_records():
    filters, gradients = random_filters((6, 4, 3, 3)), [random_filters((6, 4, 3, 3)) for _ in range(3)]
    told = dict(lr=0.24, momentum=0.6, nesterov=True, steps=3, renormalize=(True,), weight_decay=0.0)
    parameters = [torch.nn.Parameter(filters[0].clone()) for _ in range(2)]
    for parameter, muon in zip(parameters, (Muon(parameters[:1]), Muon(parameters[1:], **told))):
        for (gradient,) in gradients:
            parameter.grad = gradient.clone()
            muon.step()
    assert torch.equal(*parameters)


def test_filters_that_begin_as_zeros_learn_from_their_first_gradient_on():
    gradients = [random_filters((6, 4, 3, 3))] * 2
    (filters,), _ = stepped([torch.zeros(6, 4, 3, 3)], gradients, renormalize=(True,))
    assert filters.isfinite().all() and filters.norm() > 1
