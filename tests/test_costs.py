"""What a recipe costs: the counts are those of its own step, and docs/costs.md says the same."""

import re

import pytest
import torch
from house import ROOT
from scaling_floors import PUBLISHED

from fastresnet.base import words
from fastresnet.bench.judging import costs, machines
from fastresnet.bench.measuring.operators import Operations
from fastresnet.settings import config
from fastresnet.settings.reading import recipes

PAGE = ROOT / "docs" / "costs.md"
BEGIN, END = "<!-- begin: costs -->\n", "<!-- end: costs -->"
RECIPES = ("e1-94", "airbench94", "airbench96", "speed94", "speed95", "speed96", "rn18-94", "rn18-96", "rn18")


def table(some):
    """Markdown: a row for each cost of a recipe."""
    alone = ["arithmetic", "memory, fused", "launches by the host"]
    heads = ["recipe", "epochs", "steps", "PFLOP", "TB, fused", "TB, each for itself", "operations a step"]
    rows, machine = [heads + alone], machines.find(PUBLISHED[0])
    for cost in some:
        seconds = cost.seconds(machine, PUBLISHED[1])
        cells = [f"`{cost.recipe}`", f"{cost.epochs:g}", f"{cost.steps:,}", f"{cost.flops / 1e15:.3f}"]
        cells += [f"{cost.bytes_fused / 1e12:.2f}", f"{cost.bytes / 1e12:.2f}"]
        cells += [f"{cost.launches / cost.steps:,.0f}", *(f"{seconds[name]:.2f} s" for name in alone)]
        rows.append(cells)
    return "\n".join([*words.markdown(rows, range(1, len(heads + alone))), ""])


@pytest.fixture(scope="module")
def airbench():
    return costs.of(config.load("airbench94.yaml"))


def test_a_product_is_counted_with_its_bytes_and_a_view_is_not():
    left, right = torch.ones(4, 8), torch.ones(8, 2)
    with Operations() as seen:
        product = left @ right
        product.t().reshape(8)
        product.add_(1.0)
    assert {name: work.calls for name, work in seen.kinds.items()} == {"mm": 1, "clone": 1, "add_": 1}
    assert seen.kinds["mm"].bytes == 4 * (4 * 8 + 8 * 2 + 4 * 2) and seen.kinds["mm"].flops == 2 * 4 * 8 * 2


@pytest.mark.parametrize(("work", "tensors"), [
    (lambda a, b: torch._foreach_add_([a], [b]), 3),
    (lambda a, b: a.mul_(b), 3),
    (lambda a, b: a.copy_(b), 2),
    (lambda a, b: a.zero_(), 1),
    (lambda a, b: torch.add(a, b, out=a.clone()), 2 + 3),
    (lambda a, b: b[:1].expand(4, 8).exp(), 1 / 4 + 1),
], ids=["several in place", "in place", "copied", "zeros", "out, beside a clone", "expanded"])  # fmt: skip
def test_what_an_operation_changes_is_read_and_written_and_what_it_overwrites_only_written(work, tensors):
    a, b = torch.ones(4, 8), torch.ones(4, 8)
    with Operations() as seen:
        work(a, b)
    assert sum(one.bytes for one in seen.kinds.values()) == tensors * a.nbytes


def test_bytes_between_the_probes_lie_on_a_straight_line():
    assert costs._at(100, 4 * 7.0 + 3, 8 * 7.0 + 3) == pytest.approx(100 * 7.0 + 3)


def test_airbench_costs_what_its_author_says(airbench):
    """0.29 PFLOP in 200 steps of 2,000 images (Jordan 2024, and the muon variant's log)."""
    assert airbench.steps == 200
    assert airbench.flops == pytest.approx(0.29e15, rel=0.03)
    assert 0 < airbench.bytes_fused < airbench.bytes and airbench.launches > 100 * airbench.steps


def test_seconds_follow_from_the_machines_rates_and_evaluation_counts_its_views(airbench):
    machine = machines.find("A100")
    seconds = airbench.seconds(machine, "bf16")
    assert seconds["arithmetic"] == pytest.approx(airbench.flops / (312e12 * 790 / 989))
    forward = airbench.flops / (8 * 50_000 * 3)  # of one image; the recipe's crops are six views
    assert airbench.evaluation_flops == pytest.approx(10_000 * 6 * forward, rel=1e-6)


def test_the_page_names_every_racing_recipe_and_says_what_is_counted(airbench):
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` .*$", text, re.M)
    assert rows == [name for name in RECIPES if f"{name}.yaml" in recipes()]
    assert table([airbench]).splitlines()[-1] in text, "`make tables` counts anew"


if __name__ == "__main__":
    before = PAGE.read_text(encoding="utf-8")
    head, tail = before.index(BEGIN) + len(BEGIN), before.index(END)
    every = [costs.of(config.load(name)) for name in RECIPES if f"{name}.yaml" in recipes()]
    PAGE.write_text(before[:head] + table(every) + before[tail:], encoding="utf-8")
