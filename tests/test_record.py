"""record: valid results pass and come back as written, invalid ones are refused with the place and the
rule."""

import copy
import json

import bench_files
import jsonschema
import pytest

from fastresnet.machine import hardware, software
from fastresnet.reports import telling
from fastresnet.runs import record


def a_result() -> dict:
    seconds = {"startup": 1.0, "compile": 0.0, "train": 52.1, "eval": 1.2, "wall": 55.0}
    epoch = {
        "epoch": 1, "step": 97, "lr": 0.1, "train_loss": 1.5, "train_accuracy": 0.4, "test_loss": None,
        "test_accuracy": None, "seconds": 3.2, "images_per_second": 15000.0,
    }  # fmt: skip
    return {
        "schema_version": 1, "kind": "result", "recipe": "rn18", "config": {"optim": {"lr": 0.1}}, "seed": 3,
        "git": {"commit": "a" * 40, "dirty": False}, "data": dict(bench_files.DATA),
        "accuracy": {"test": 0.9512, "test_tta": 0.954, "best": 0.9512, "best_epoch": 16}, "loss": 0.21,
        "seconds": seconds, "images_per_second": 15400.0, "flops_per_image": 1.11e9, "mfu": 0.23,
        "peak_memory_bytes": 10**9, "energy_joules": None, "hardware": hardware.describe(),
        "software": software.versions(), "per_epoch": [epoch],
    }  # fmt: skip


def a_record() -> dict:
    result, run = a_result(), {"status": "ok", "accuracy": 0.93, "accuracy_tta": 0.9402}
    run["seconds"] = {"init": 0.1, "augment": 0.0, "train": 0.5, "eval": 0.1, "total": 0.7}
    summary = {
        "n": 3, "mean": 0.9402, "std": 0.0014, "ci95": 0.0035, "p_value": 0.4, "seconds_mean": 0.71,
        "seconds_std": 0.01,
    }  # fmt: skip
    return {
        "schema_version": 1, "kind": "record", "recipe": "speed94", "published": None, "target": 0.94,
        "runs": [{"seed": seed, **run} for seed in range(3)], "summary": summary, "rivals": [],
    } | {key: result[key] for key in ("hardware", "software", "git", "data")}  # fmt: skip


@pytest.mark.parametrize("kind", record.SCHEMAS)
def test_each_schema_is_itself_a_valid_json_schema(kind):
    jsonschema.Draft202012Validator.check_schema(record.schema(kind))


@pytest.mark.parametrize("make", [a_result, a_record])
def test_a_record_is_read_back_as_it_was_written(make, tmp_path):
    record.write(tmp_path / "new" / "result.json", make())
    assert record.read(tmp_path / "new" / "result.json") == make()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["result.json"]


BREAKS = {
    "a missing field": (lambda r: r.pop("seed"), "seed is missing"),
    "a missing inner field": (lambda r: r["accuracy"].pop("test_tta"), "accuracy.test_tta is missing"),
    "a wrong type": (lambda r: r.update(seed="3"), "seed must be integer, got '3'"),
    "percent instead of a share": (
        lambda r: r["accuracy"].update(test=95.1),
        "accuracy.test must lie in 0..1, got 95.1",
    ),
    "not a number": (lambda r: r.update(loss=float("nan")), "loss is nan"),
    "a broken row": (lambda r: r["per_epoch"][0].pop("step"), r"per_epoch\[0\].step is missing"),
    "a truth value as a number": (lambda r: r.update(mfu=True), "mfu must be number or null"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_an_invalid_result_is_refused_with_the_place_and_nothing_is_written(name, tmp_path):
    broken, (breaks, message) = a_result(), BREAKS[name]
    breaks(broken)
    with pytest.raises(record.RecordError, match=message):
        record.write(tmp_path / "result.json", broken)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", [name for name in BREAKS if name != "not a number"]
)  # NaN is a number to jsonschema
def test_our_checker_agrees_with_jsonschema(name):
    validator = jsonschema.Draft202012Validator(record.schema("result"))
    assert validator.is_valid(a_result())
    broken = copy.deepcopy(a_result())
    BREAKS[name][0](broken)
    assert not validator.is_valid(broken)


def test_another_schema_version_is_refused():
    with pytest.raises(record.RecordError, match="schema_version is 7, this release reads 1"):
        record.validate(a_result() | {"schema_version": 7})


@pytest.mark.parametrize(
    "content, message",
    [("{", "can't be read as JSON"), ("[]", "a record is an object"), (None, "no such file")],
)
def test_reading_names_the_file_and_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(record.RecordError, match=message) as caught:
        record.read(path)
    assert str(path) in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    record.write(tmp_path / "r.json", a_record())
    with pytest.raises(record.RecordError, match="it is a record file, a benchmark file is wanted"):
        record.read(tmp_path / "r.json", "benchmark")


def test_one_line_says_recipe_accuracy_time_and_machine():
    assert telling.line(a_record()).startswith("speed94     n=3  acc 94.02 ±0.14 %  time 0.71 ±0.01 s  ")
    line = telling.line(a_result())
    assert "acc 95.12 %  tta 95.40 %  time 52.10 s  15,400 images/s  mfu 23 %" in line
    assert "SYNTHETIC" not in line
    synthetic = a_result()
    synthetic["data"]["synthetic"] = True
    assert telling.line(synthetic).endswith("SYNTHETIC DATA")


def test_the_machine_line_is_one_line_of_json():
    assert "\n" not in record.dumps(a_result())
    assert json.loads(record.dumps(a_result())) == a_result()


@pytest.mark.parametrize(
    "target, said", [(0.95, "target    95.00 %: reached in this run"), (0.96, "target    96.00 %: missed")]
)
def test_at_a_terminal_a_run_ends_with_what_was_reached_where_to_look_and_what_is_next(
    tmp_path, target, said
):
    result = a_result()
    result["config"]["eval"] = {"target": target}
    (tmp_path / "report.html").write_text("")
    told = telling.ending(result, tmp_path)
    assert said in told and "accuracy  95.12 %, 95.40 % with" in told and "15,400 images/s" in told
    assert f"report    {tmp_path}/report.html" in told
    assert told.endswith(f"--checkpoint={tmp_path}") and "next      fastresnet evaluate" in told


def test_a_record_nested_too_deeply_for_the_checker_is_refused_in_one_line(tmp_path):
    deep = json.dumps(a_result()).replace('"config": {', '"config": {"x": ' + "[" * 900 + "]" * 900 + ", ", 1)
    (tmp_path / "r.json").write_text(deep)
    with pytest.raises(record.RecordError, match="can't be read as JSON"):
        record.read(tmp_path / "r.json")


def test_texts_of_a_record_hold_nothing_that_a_terminal_obeys(tmp_path):
    record.write(tmp_path / "r.json", a_result() | {"recipe": "\x1b[2Jx\u202e"})
    assert record.read(tmp_path / "r.json")["recipe"] == "\\x1b[2Jx\\u202e"
