"""Averages of the weights: equal to their formulas, exact after being stored, and apart from the model."""

import pytest
import torch
from model_settings import section
from torch import nn

from fastresnet.optim.averaging import Ema, Lookahead, TailAverage, build


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def move(model):
    """Something like a training step: every weight and statistic changes."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    model(torch.randn(4, 1, 3, 3))


def weights(model):
    return torch.cat([v.detach().double().flatten() for v in model.state_dict().values()])


def averaged(average):
    target = small_model()
    average.copy_to(target)
    return weights(target)


def test_ema_follows_its_formula_and_forgets_the_first_weights_quickly():
    model = small_model()
    ema, expected = Ema(model, 0.9), weights(model)
    for step in range(1, 30):
        move(model)
        ema.update(step)
        decay = min(0.9, step / (9 + step))
        expected = decay * expected + (1 - decay) * weights(model)
    result = averaged(ema)
    torch.testing.assert_close(result[:-1], expected[:-1], rtol=1e-5, atol=1e-5)
    assert result[-1] == 29  # batch norm's counter is copied, not averaged


def test_tail_average_is_the_mean_of_the_last_steps():
    model = small_model()
    tail, seen = TailAverage(model, start_step=3), []
    for step in range(1, 8):
        move(model)
        tail.update(step)
        seen.append(weights(model))
        if step == 2:
            torch.testing.assert_close(averaged(tail), seen[-1])
    torch.testing.assert_close(averaged(tail)[:-1], torch.stack(seen[3:]).mean(0)[:-1], rtol=1e-5, atol=1e-5)


def test_averages_leave_the_model_alone():
    model = small_model()
    kinds = [Ema(model, 0.9), TailAverage(model, 0)]
    for step in range(1, 4):
        move(model)
        before = weights(model)
        for average in kinds:
            average.update(step)
        assert weights(model).equal(before)


def test_lookahead_moves_slow_weights_and_continues_from_them():
    model = small_model()
    lookahead, slow = Lookahead(model, steps=3, alpha=0.25), weights(model)
    for step in range(1, 8):
        move(model)
        fast = weights(model)
        lookahead.update(step)
        if step % 3 == 0:
            slow = slow + 0.25 * (fast - slow)
            torch.testing.assert_close(weights(model)[:-1], slow[:-1], rtol=1e-5, atol=1e-5)
        else:
            assert weights(model).equal(fast)


def test_lookaheads_ramp_falls_from_one_to_alpha_and_ends_on_the_slow_weights():
    model = small_model()
    lookahead = Lookahead(model, steps=5, alpha=0.2, ramp_steps=12)
    assert lookahead._share(0) == 1.0 and lookahead._share(12) == pytest.approx(0.2)
    assert lookahead._share(6) == pytest.approx(1 - 0.8 / 8)
    for step in range(1, 13):
        move(model)
        lookahead.update(step)
        if step == 10:
            slow = weights(model)
    torch.testing.assert_close(weights(model)[:-1], slow[:-1])


@pytest.mark.parametrize(
    "make", [lambda m: Ema(m, 0.8), lambda m: TailAverage(m, 2), lambda m: Lookahead(m, 2, 0.5)]
)
def test_a_stored_average_goes_on_bit_for_bit(make):
    def run(interrupt):
        model = small_model()
        average = make(model)
        torch.manual_seed(5)
        for step in range(1, 9):
            move(model)
            average.update(step)
            if step == 4 and interrupt:
                state = average.state_dict()
                average = make(model)
                average.load_state_dict(state)
        return weights(model), average.state_dict()["weights"]

    (live_a, kept_a), (live_b, kept_b) = run(False), run(True)
    assert live_a.equal(live_b) and all(kept_a[name].equal(kept_b[name]) for name in kept_a)


def test_restarting_begins_from_the_present_weights():
    model = small_model()
    ema = Ema(model, 0.99)
    ema.update(1)
    move(model)
    ema.restart()
    torch.testing.assert_close(averaged(ema), weights(model))
    assert ema.updates == 0


def test_settings_choose_the_averages_and_lookahead_comes_first():
    optim = section("optim", lookahead=5, lookahead_ramp=True)
    lookahead, tail = build(small_model(), optim, section("train", average_tail=0.25), 100)
    assert isinstance(lookahead, Lookahead) and lookahead.ramp_steps == 100
    assert isinstance(tail, TailAverage) and tail.start_step == 75
    assert build(small_model(), section("optim"), section("train"), 100) == []


def test_lookaheads_last_move_takes_in_the_steps_before_it():
    model = small_model()
    lookahead, slow = Lookahead(model, steps=3, alpha=0.2, ramp_steps=6), weights(model)
    for step in range(1, 7):
        move(model)
        fast = weights(model)
        lookahead.update(step)
        if step % 3 == 0:
            slow = slow + lookahead._share(step) * (fast - slow)
    torch.testing.assert_close(weights(model)[:-1], slow[:-1], rtol=1e-5, atol=1e-5)


def test_lookahead_may_begin_late_from_the_weights_it_finds():
    model = small_model()
    late, begun = Lookahead(model, steps=2, alpha=0.3, start_step=3), []
    for step in range(1, 8):
        move(model)
        fast = weights(model)
        late.update(step)
        if step == 3:
            slow = fast
        elif step in (5, 7):
            slow = slow + 0.3 * (fast - slow)
            begun.append(step)
        expected = slow if step in (5, 7) else fast
        torch.testing.assert_close(weights(model)[:-1], expected[:-1], rtol=1e-5, atol=1e-5)
    assert begun == [5, 7]


def test_anothers_average_is_refused():
    ema = Ema(small_model(), 0.9)
    with pytest.raises(ValueError, match="belong to another model"):
        ema.load_state_dict(Ema(nn.Linear(2, 2), 0.9).state_dict())
    with pytest.raises(ValueError, match="ema_decay must lie between"):
        Ema(small_model(), 1.0)


@pytest.mark.parametrize("steps, alpha", [(0, 0.5), (3, 0.0), (3, 1.5)])
def test_lookahead_that_never_looks_or_never_moves_is_refused(steps, alpha):
    with pytest.raises(ValueError, match="optim.lookahead must be at least 1 and its alpha within"):
        Lookahead(small_model(), steps, alpha)
