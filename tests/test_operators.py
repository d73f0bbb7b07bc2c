"""operators: a step is taken apart, each operation timed and counted once; the parts sum up to the step."""

import json
import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from fastresnet import cpu, models
from fastresnet.base import exits
from fastresnet.bench.commands import run
from fastresnet.bench.measuring import operators
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.operators import BY_INPUT, BY_WEIGHT, FORWARD, OPTIMIZER, Timed
from fastresnet.models.flops import flops_per_image
from fastresnet.settings import config


def measured():
    return operators.measure(Context(torch.device("cpu"), tiny=True), "cpu.yaml")


@pytest.fixture(scope="module")
def found():
    return measured()


def row(found, kind):
    return next(row for row in found.rows if row.kind == kind)


def test_the_parts_sum_up_to_the_step_within_a_quarter(found):
    """On a machine that does other things meanwhile, in one measurement of five."""

    def sums_up(one):
        whole = sum(row.seconds for row in one.rows)
        return 0.75 <= one.explained <= 1.25 and 0.999 * one.step_seconds <= whole <= 1.25 * one.step_seconds

    assert sums_up(found) or any(sums_up(measured()) for _ in range(4))


def test_every_kind_of_work_in_the_net_has_its_row(found):
    missing = set(operators.ROWS) - {one.kind for one in found.rows}
    assert not missing and all(one.seconds > 0 for one in found.rows if one.calls)


def test_flops_are_those_that_the_model_is_known_to_take(found):
    """Whitening's filters never learn, and its images need no gradient; a linear layer costs three passes."""
    cfg = config.load("cpu.yaml")
    net = models.build(cfg.model, 10, 32)
    cpu.choose(net, cfg.train, torch.device("cpu"), "off")
    forward, by_input, by_weight = (row(found, kind).flops for kind in (FORWARD, BY_INPUT, BY_WEIGHT))
    assert forward + row(found, "linear layers").flops / 3 == pytest.approx(
        64 * flops_per_image(net, 32, learning=True)
    )
    assert 0 < by_input <= by_weight < forward
    assert (found.batch_size, found.image_size) == (64, 32)


def test_muons_products_are_the_optimizers(found):
    assert row(found, OPTIMIZER).flops > 0 and row(found, OPTIMIZER).calls > 20


def test_a_convolutions_backward_pass_in_two_parts_gives_the_same_gradients():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3), torch.randn(4)
    given = [t.requires_grad_() for t in (x, weight, bias)]
    plain = torch.autograd.grad(F.conv2d(*given, padding=1).square().sum(), given)
    with Timed() as seen:
        parts = torch.autograd.grad(F.conv2d(*given, padding=1).square().sum(), given)
    for one, other in zip(plain, parts, strict=True):
        torch.testing.assert_close(one, other)
    out, products = 2 * 4 * 64, 2 * 2 * 4 * 64 * 27
    assert [seen.kinds[kind].flops for kind in (FORWARD, BY_INPUT, BY_WEIGHT)] == [products] * 3
    assert seen.kinds[BY_INPUT].bytes == 4 * (out + weight.numel() + x.numel())
    assert seen.kinds[BY_WEIGHT].bytes == 4 * (out + x.numel() + weight.numel() + bias.numel())


def test_on_a_cpu_the_profiler_says_nothing_of_its_own():
    """Of a GPU that it doesn't find, for one; it asks once a process how loud it may be."""
    code = "import torch\nfrom fastresnet.bench.measuring.profiles import recorder\n"
    code += "with recorder(on_gpu=False):\n    torch.ones(2) + 1"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_prints_an_aligned_table_and_writes_the_same_as_json(tmp_path, capsys):
    path = tmp_path / "operators.json"
    words = ["--operators", "smoke.yaml", "--scale", "tiny", "--device", "cpu", "--out", str(path)]
    assert run.main(words) == 0
    title, *body, last, written = capsys.readouterr().out.splitlines()
    content = json.loads(path.read_text())
    assert title.startswith("smoke on cpu, fp32, eager: a step of 64 images of 32 px takes ")
    ends = {re.match(r".*?( ms|\.\d\d) ", line).end() for line in body}  # of the first column of figures
    assert len(ends) == 1 and len(body) == 1 + len(content["rows"])
    assert "operations sum up to " in last and written == f"written: {path}"
    assert content["kind"] == "operators" and content["hardware"]["cpu"]["model"]
    assert content["explained"] == pytest.approx(
        sum(one["seconds"] for one in content["rows"][:-1]) / content["step_seconds"]
    )


def test_what_can_not_be_taken_apart_is_one_line(capsys):
    with pytest.raises(ValueError, match="--operators needs a CPU or a CUDA GPU.* what mps does"):
        operators.measure(Context(torch.device("mps")), "cpu.yaml")
    assert exits.exit_code(run.main, ["--operators", "none.yaml", "--device", "cpu"]) == 2
    told = capsys.readouterr().err
    assert "none.yaml" in told and told.count("\n") == 1


@pytest.mark.gpu
def test_a_gpus_step_is_its_kernels_and_what_lies_between_them():
    found = operators.measure(Context(torch.device("cuda"), tiny=True), "cpu.yaml")
    assert 0 < found.explained <= 1.1 and all(one.seconds > 0 for one in found.rows if one.flops)
    assert sum(one.seconds for one in found.rows) == pytest.approx(found.step_seconds, rel=0.1)
