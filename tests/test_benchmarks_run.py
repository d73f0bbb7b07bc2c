"""run: the quick suite at tiny size, so that no benchmark rots; a valid file, whatever fails inside."""

from pathlib import Path

import pytest
import torch

from fastresnet.base import exits
from fastresnet.bench.measuring import profiles, suite
from fastresnet.bench.measuring.context import Context
from fastresnet.runs import record


@pytest.mark.parametrize("only, least", [("ceilings,loader,step", 6), ("endtoend,accuracy", 3)])
def test_the_tiny_suite_writes_a_valid_file_with_rows_of_every_part(
    tmp_path, monkeypatch, capsys, only, least
):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "tiny.json"
    code = suite.main(
        ["--scale", "tiny", "--device", "cpu", "--only", only, "--out", str(out), "--budget", "600"]
    )
    result = record.read(out, "benchmark")
    assert code == 0
    bad = [
        (row["id"], row["message"]) for row in result["cases"] if row["status"] in ("failed", "out of memory")
    ]
    assert not bad
    assert sum(row["status"] == "ok" for row in result["cases"]) >= least
    assert {row["part"] for row in result["cases"]} == set(only.split(","))
    assert result["data"]["synthetic"] and "SYNTHETIC DATA" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.json"}


def test_a_profile_is_a_trace_and_a_table(tmp_path):
    said = []
    table = profiles.write(Context(torch.device("cpu"), tiny=True), Path(tmp_path) / "profile", said.append)
    text = table.read_text()
    assert "matrix work" in text and "gaps" in text and said
    assert (table.parent / "trace.json").stat().st_size > 1000


def test_speedups_are_over_the_eager_contiguous_step_of_the_same_precision():
    def row(layout, seconds, precision="fp32"):
        settings = {
            "model": "m",
            "work": "step",
            "batch_size": 8,
            "precision": precision,
            "memory_format": layout,
            "compile": "off",
        }
        return {
            "part": "step",
            "status": "ok",
            "settings": settings,
            "quantiles": {"median": seconds},
            "figures": {},
        }

    rows = [row("contiguous", 3.0), row("channels_last", 2.0), row("channels_last", 1.0, "bf16")]
    suite.add_speedups(rows)
    assert rows[1]["figures"]["speedup_over_eager_contiguous_same_precision"] == pytest.approx(1.5)
    assert rows[2]["figures"] == {"speedup_over_eager_contiguous_fp32": pytest.approx(3.0)}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--only", "steps"], "the parts are ceilings, loader, step, endtoend, accuracy"),
        (["--suite", "huge"], "invalid choice"),
        (["--budget", "-1"], "--budget must be above 0 seconds"),
        (["--gpu"], "unrecognized"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_says_why(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        suite.main(arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["quantum", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name, capsys):
    assert exits.exit_code(suite.main, ["--device", name]) == 2
    assert f"--device {name}" in capsys.readouterr().err
