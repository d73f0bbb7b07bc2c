"""A run's page: what it says, that it loads nothing, and that a real browser shows it in light, dark and on a
phone."""

import base64
import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import DARK, title
from made_run import call, write_run
from PIL import Image

from fastresnet.reports import charts, finished, page, run_page, runs_page

STYLE = Path(__file__).parent.parent / "fastresnet" / "reports" / "assets"


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "runs" / "small" / "one")


def test_the_page_says_what_the_record_says(run):
    path, images = run
    text = run_page.write(path, replace(finished.predictions(path), images=images)).read_text()
    wanted = "62.00 %|8.00 s|2:10 min|max 70.00 % in epoch 3|2 cores some CPU|Most confidently wrong|seed 3"
    wanted += "|ECE|git checkout abc123|uncommitted changes|config.yaml|best validation accuracy|resnet-20"
    wanted += "|68,786|bf16|41.7 %|1.00 GB|cross-entropy in nats an image; training: with augmented images"
    assert not [words for words in wanted.split("|") if words not in text]
    assert text.count("data:image/png;base64,") == run_page.WORST or text.count("<img") > 0


def test_the_page_loads_nothing_from_anywhere_and_escapes_names(run):
    text = run_page.write(run[0]).read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', text) and "@import" not in text
    assert "<script>" not in text and "small&lt;script&gt;" in text


def test_a_page_rebuilt_without_the_data_lists_the_worst_without_pictures(run):
    text = run_page.write(run[0]).read_text()
    assert "Most confidently wrong" in text and "<img" not in text and "ant" in text


@pytest.mark.parametrize(
    "train, said",
    [
        (
            {"epoch_share": 0.68, "hard_fraction": 1.0},
            "augmented images, the hardest 68 % of all in each epoch",
        ),
        ({"epoch_share": 1.0, "hard_fraction": 0.5}, "augmented images, the hardest 50 % of each batch"),
        ({"label_smoothing": 0.1}, "augmented images, label smoothing 0.1"),
    ],
)
def test_the_page_says_which_images_the_training_loss_is_of(train, said):
    assert run_page.loss_of({"config": {"train": train}}).endswith(f"training: with {said}")


def test_a_run_in_a_folder_named_like_its_recipe_is_called_that_once(run):
    found = finished.read(run[0])
    recipe = found.record["recipe"]
    assert replace(found, path=Path(recipe)).name == recipe
    assert replace(found, path=Path("mine")).name == f"{recipe} mine"


def test_photographs_are_shown_small(run):
    path, _ = run
    photographs = np.zeros((60, 300, 400, 3), np.uint8)
    text = run_page.write(path, replace(finished.predictions(path), images=photographs)).read_text()
    assert "data:image/jpeg;base64," in text and len(text) < 100_000


def test_synthetic_data_and_an_unfinished_run_are_said_in_the_headline(tmp_path):
    drawn, _ = write_run(tmp_path / "drawn", synthetic=True)
    assert "Synthetic data." in run_page.write(drawn).read_text()
    begun, _ = write_run(tmp_path / "begun", finished=False)
    assert "not finished" in run_page.write(begun).read_text()


def test_a_folder_that_is_no_run_and_a_damaged_record_are_named(tmp_path):
    with pytest.raises(ValueError, match="not a run's folder"):
        finished.read(tmp_path)
    path, _ = write_run(tmp_path / "run")
    (path / "result.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        finished.read(path)


def test_runs_are_compared_in_a_table_and_over_each_other(tmp_path, monkeypatch, capsys):
    for name in ("one", "two"):
        write_run(tmp_path / name, epochs=3 if name == "two" else 4)
    out = tmp_path / "both.html"
    assert call(monkeypatch, "report", tmp_path / "one", tmp_path / "two", "--out", out) == 0
    assert "70.00 %" in capsys.readouterr().out
    assert "2 runs compared" in out.read_text() and out.with_suffix(".png").stat().st_size > 1000


def test_runs_that_differ_in_their_seed_get_a_mean_and_a_deviation_others_their_settings(tmp_path):
    for name, change in (("a", "seed: 0"), ("b", "seed: 1"), ("c", "seed: 2")):
        path, _ = write_run(tmp_path / name)
        text = (path / "config.yaml").read_text()
        assert "seed: 0" in text
        (path / "config.yaml").write_text(text.replace("seed: 0", change))
    runs = [finished.read(tmp_path / name) for name in "abc"]
    assert runs_page.differing(runs) == {"run.seed": ["0", "1", "2"]}
    assert runs_page.seeds(runs).startswith("3 seeds: test 60.00 ±0.00 %")
    (tmp_path / "c" / "config.yaml").write_text(text.replace("batch_size: 512", "batch_size: 64"))
    runs = [finished.read(tmp_path / name) for name in "abc"]
    assert runs_page.seeds(runs) is None and "train.batch_size" in runs_page.differing(runs)
    assert "Settings that differ" in runs_page.write(runs, tmp_path / "all.html").read_text()


def test_a_confusion_matrix_shades_mistakes_apart_from_right_answers(run):
    counts = [[90, 10, 0], [2, 98, 0], [0, 1, 99]]
    labels = np.repeat([0, 1, 2], 100)
    said = np.concatenate([np.repeat([0, 1, 2], row) for row in counts])
    answers = finished.Predictions(np.eye(3)[said], labels, ("cat", "<b>", "dog"))
    drawn = run_page.write(run[0], answers).read_text()
    assert 'class="wrong" style="--shade:1.000" title="cat taken for &lt;b&gt;: 10.00 %">10<' in drawn
    assert 'class="right" style="--shade:1.000" title="dog taken for dog: 99.00 %">99<' in drawn
    assert 'class="right" style="--shade:0.000" title="cat taken for cat: 90.00 %">90<' in drawn
    assert drawn.count('class="none"') == 3 and "taken for <b>" not in drawn


def many_classes(count):
    """Answers for so many classes, half of them wrong, with names as CIFAR-100 has them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, count, 20 * count)
    logits = rng.normal(size=(len(labels), count)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += 3.0
    return finished.Predictions(logits, labels, tuple(f"wide meadow {index}" for index in range(count)))


def test_a_confusion_matrix_too_large_for_numbers_is_a_picture(run):
    drawn = {count: run_page.write(run[0], many_classes(count)).read_text() for count in (12, 20, 100)}
    found = {
        count: re.search(r'<img class="(heat[^"]*)"[^>]*base64,([^"]+)"', text)
        for count, text in drawn.items()
    }
    assert found[12] is None and 'class="matrix"' in drawn[12]
    assert found[20][1] == "heat narrow" and 'class="matrix"' in drawn[20], "numbers where there is room"
    assert found[100][1] == "heat" and 'class="matrix"' not in drawn[100]
    with Image.open(io.BytesIO(base64.b64decode(found[100][2]))) as picture:
        assert picture.size == (100, 100) and picture.mode == "RGBA"
        blue, vermilion = (1, 1), (3, 90)
        assert picture.getpixel(blue)[:3] == page.RIGHT and picture.getpixel(vermilion)[:3] == page.WRONG
        assert picture.getpixel(blue)[3] > 50


def test_comparing_runs_without_an_epoch_is_an_error(tmp_path):
    path, _ = write_run(tmp_path / "run", finished=False, epochs=0)
    with pytest.raises(ValueError, match="nothing to compare"):
        runs_page.write([finished.read(path)], tmp_path / "x.html")


def test_a_read_only_folder_ends_in_one_line(tmp_path, monkeypatch, capsys, run):
    def refuse(path, to):
        raise PermissionError(13, "Permission denied", str(to))

    monkeypatch.setattr(os, "replace", refuse)
    assert call(monkeypatch, "report", run[0]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.93, 0.94), (0, 0), (1e-9, 3e-9), (5, 51234)])
def test_ticks_are_round_and_hold_the_values(low, high):
    marks = charts.ticks(low, high)
    assert marks[0] <= low and marks[-1] >= high * (1 - 1e-9) and 2 <= len(marks) <= 9
    assert np.allclose(np.diff(marks), marks[1] - marks[0])


@pytest.mark.parametrize(
    "y", [[0.0], [0.0] * 3, [5.0] * 3, [-3.0], [1e-15, 2e-15], [1e300], [None, None], []]
)
@pytest.mark.parametrize("start_at_zero", [True, False])
def test_every_series_draws_be_it_constant_zero_or_missing(y, start_at_zero):
    history = [{"epoch": epoch + 1, "lr": value} for epoch, value in enumerate(y)]
    one = run_page.line(history, "lr", "rate")
    drawn = charts.chart("t", "y", [one], "x", from_zero=start_at_zero)
    assert drawn.count("<circle") == len([value for value in y if value is not None])
    assert "nan" not in drawn and "inf" not in drawn


def test_a_run_whose_only_rate_is_zero_has_a_page(tmp_path):
    path, _ = write_run(tmp_path / "run", epochs=1)
    result = json.loads((path / "result.json").read_text())
    result["per_epoch"][0] |= {"lr": 0.0, "images_per_second": 0.0, "train_loss": 0.0, "test_accuracy": 0.0}
    (path / "result.json").write_text(json.dumps(result))
    assert "Learning rate" in run_page.write(path).read_text()


def test_a_chart_leaves_out_what_is_not_finite():
    nothing = charts.Series("a", [(1, float("nan")), (2, float("nan"))])
    assert charts.chart("t", "y", [nothing], "x") == ""
    drawn = charts.chart("t", "y", [charts.Series("a", [(1, 1), (2, float("inf")), (3, 2)])], "x")
    assert drawn.count("<circle") == 2 and "inf" not in drawn


def luminance(colour):
    """Relative luminance by WCAG 2.2 of red, green and blue in 0..255."""
    linear = [c / 3294.6 if c <= 10.3 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_can_be_read_on_every_background(scheme):
    css = (STYLE / "page.css").read_text(encoding="utf-8")
    part = css.partition("@media (prefers-color-scheme: dark)")[0 if scheme == "light" else 2]
    found = {name: tuple(bytes.fromhex(digits)) for name, digits in re.findall(r"--([\w-]+): #(\w{6})", part)}
    most = {kind: float(share) / 100 for kind, share in re.findall(r"--most-(\w+): (\d+)%", part)}
    for name in ("text", "soft", "c0", "c1", "c2"):
        assert min(contrast(found[name], found[back]) for back in ("back", "card")) >= 4.5, name
    for name in ("c3", "c4", "c5", "c6"):
        assert contrast(found[name], found["card"]) >= 3, f"{name}, a line"
    for name, share in (("c0", most["right"] + 0.1), ("c1", most["wrong"])):
        cell = [share * a + (1 - share) * b for a, b in zip(found[name], found["card"])]
        assert contrast(found["text"], cell) >= 4.5, f"the darkest cell of a confusion matrix, {name}"


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_a_real_browser_shows_the_page_without_scrolling_sideways(run, tmp_path, width, dark):
    path, images = run
    text = run_page.write(path, replace(finished.predictions(path), images=images)).read_text()
    probe = (
        "<script>const s = document.documentElement, b = getComputedStyle(document.body);"
        "document.title = [s.scrollWidth <= s.clientWidth, b.backgroundColor, b.color,"
        "document.querySelectorAll('svg').length, [...document.images].every(i => "
        "i.naturalWidth)].join('|')</script>"
    )
    text = text.replace("</body>", probe + "</body>")
    shown = title(tmp_path, text, *(DARK if dark else ()), width=width)
    fits, background, colour, charts_shown, pictures = shown.split("|")
    assert fits == "true" and int(charts_shown) >= 5 and pictures == "true"
    assert (background == "rgb(20, 23, 26)") == dark and background != colour


def test_tables_of_several_runs_and_a_hundred_classes_fit_a_phone(run, tmp_path):
    path, _ = write_run(tmp_path / "a run with a long name, as by its time of day")
    settings = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(settings.replace("label_smoothing: 0.0", "label_smoothing: 0.1"))
    both = runs_page.write([finished.read(run[0]), finished.read(path)], tmp_path / "both.html")
    for page_text in (both.read_text(), run_page.write(run[0], many_classes(100)).read_text()):
        look = """<script>const wide = [...document.querySelectorAll('.scroll, table, img')].filter(one =>
        one.getBoundingClientRect().right > innerWidth || one.scrollWidth > one.clientWidth + 1);
        document.title = 'wide:' + wide.map(one => one.className || one.tagName)</script></body>"""
        assert title(tmp_path, page_text.replace("</body>", look), width=390) == "wide:"


@pytest.mark.parametrize("last", [2, 3, 4, 5, 9, 12, 13, 16, 24, 30, 200])
def test_there_is_no_half_epoch_on_an_axis(last):
    history = [{"epoch": epoch, "lr": 0.1 * epoch} for epoch in range(1, last + 1)]
    drawn = charts.chart("t", "y", [run_page.line(history, "lr", "rate")], "epoch")
    under = re.findall(r'text-anchor="middle">([\d.]+)</text>', drawn)
    assert 1 <= len(under) <= 9 and all("." not in text for text in under)


def test_groups_of_seeds_stand_side_by_side_with_mean_deviation_and_a_dot_a_run(tmp_path):
    told = [(0.1, 0, 0.6), (0.1, 1, 0.62), (0.2, 0, 0.7), (0.2, 1, 0.7)]
    for index, (lr, seed, accuracy) in enumerate(told):
        path, _ = write_run(tmp_path / str(index))
        text = (path / "config.yaml").read_text()
        text = re.sub(r"(\n  lr:) [\d.]+", rf"\1 {lr}", text).replace("seed: 0", f"seed: {seed}")
        (path / "config.yaml").write_text(text)
        result = json.loads((path / "result.json").read_text())
        result["accuracy"]["test"] = accuracy
        (path / "result.json").write_text(json.dumps(result))
    runs = [finished.read(tmp_path / str(index)) for index in range(4)]
    first, second = runs_page.groups(runs)
    assert (first.name, second.settings) == ("optim.lr=0.1", {"optim.lr": "0.2"})
    assert runs_page.spreads([first])[0][:4] == ["0.1", "2", "61.00 ±1.41 %", "±12.71"]
    drawn = runs_page.write(runs, tmp_path / "all.html", "the <second> is best").read_text()
    assert "the &lt;second&gt; is best" in drawn and "70.00 ±0.00 %" in drawn
    assert (
        drawn.count('r="4"') == 4 and "each run, by optim.lr" in drawn and 'text-anchor="end">0.2<' in drawn
    )
    head = [
        "".join(cells)
        for cells in re.findall(r"<th>(run)</th><th>([\w.]+)</th><th>([\w.]+)</th></tr>", drawn)
    ]
    assert head == ["runoptim.lrrun.seed"], (
        "settings that differ: four runs below each other, not four columns"
    )
    many = runs_page.write(runs * 2, tmp_path / "many.html").read_text()
    assert "optim.lr=0.1 (mean of 4)" in many and "mean of" not in drawn


def test_strips_draw_equal_values_and_none():
    assert charts.strips([("a", [])], title="t", x_label="x") == ""
    drawn = charts.strips([("a<b", [5.0, 5.0]), ("none", [])], title="t", x_label="x")
    assert drawn.count("<circle") == 2 and "a&lt;b" in drawn and "nan" not in drawn


@pytest.mark.parametrize("spoil", [
    lambda record: record.update(accuracy={}),
    lambda record: record.pop("git"),
    lambda record: record["seconds"].pop("train"),
    lambda record: record["per_epoch"][0].update(train_loss="low"),
    lambda record: record.update(hardware=[]),
    lambda record: record.update(seed="3"),
])  # fmt: skip
def test_a_record_that_lacks_something_is_one_line_and_exit_2(tmp_path, monkeypatch, capsys, spoil):
    path, _ = write_run(tmp_path / "run")
    record = json.loads((path / "result.json").read_text())
    spoil(record)
    (path / "result.json").write_text(json.dumps(record))
    assert call(monkeypatch, "report", path) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and "result.json" in err


@pytest.mark.parametrize("row", ['{"epoch": 1, "lr": "x"}', '{"epoch": null}', '{"epoch": NaN}', "[1]"])
def test_a_row_of_a_run_under_way_that_is_none_is_refused(tmp_path, row):
    path, _ = write_run(tmp_path / "run", finished=False)
    (path / "metrics.jsonl").write_text(row + "\n")
    with pytest.raises(ValueError, match="metrics.jsonl is damaged"):
        finished.read(path)


@pytest.mark.parametrize("changes", [{"logits": np.array([["a"]])}, {"labels": np.array(["a"])}])
def test_predictions_that_are_no_numbers_are_damaged(tmp_path, changes):
    path, _ = write_run(tmp_path / "run")
    stored = dict(np.load(path / "predictions.npz"))
    np.savez(path / "predictions.npz", **(stored | changes))
    with pytest.raises(ValueError, match="predictions.npz: damaged"):
        finished.predictions(path)
