"""One wording for numbers."""

import io
import shlex

import pytest

from fastresnet.base import words


@pytest.mark.parametrize(("given", "text"), [
    ((0.9402, 0.0014), "94.02 ±0.14 %"), ((0.9402,), "94.02 %"), ((None, 0.1), "-"),
    ((0.0, 0.0), "0.00 ±0.00 %"),
])  # fmt: skip
def test_a_share_is_told_in_percent_with_its_spread(given, text):
    assert words.percent(*given) == text


def test_seconds_from_a_hundred_on_are_whole_unless_that_hides_their_spread():
    told = [words.seconds(*given) for given in ((0.714, 0.006), (99.99,), (123.4, 2.6), (250.31, 0.42))]
    assert told == ["0.71 ±0.01 s", "99.99 s", "123 ±3 s", "250.3 ±0.4 s"]


@pytest.mark.parametrize(("seconds", "text"), [
    (8.24, "8.2 s"), (59.94, "59.9 s"), (185, "3:05 min"), (3599.6, "1:00:00 h"), (3723, "1:02:03 h"),
    (None, "-"),
])  # fmt: skip
def test_durations_read_as_people_say_them(seconds, text):
    assert words.duration(seconds) == text


@pytest.mark.parametrize(("value", "unit", "text"), [
    (0.00231, "s", "2.31 ms"), (12.0, "s", "12 s"), (3e-9, "s", "3 ns"), (1.11e9, "FLOP", "1.11 GFLOP"),
    (7.9e15, "FLOP/s", "7,900 TFLOP/s"), (0.9997, "s", "1,000 ms"),
    (12_000, "", "12k"), (-3.1e6, "", "-3.1M"), (0.25, "", "0.25"),
])  # fmt: skip
def test_an_amount_is_scaled_to_be_readable(value, unit, text):
    assert words.amount(value, unit) == text


@pytest.mark.parametrize(("p_value", "text"), [(0.00961, "p=0.0096"), (0.31, "p=0.31"), (0.0, "p<1e-12")])
def test_a_chance_is_never_rounded_to_none_nor_onto_a_limit(p_value, text):
    assert words.chance(p_value) == text


@pytest.mark.parametrize(("count", "text"), [(7, "7 bytes"), (3 << 10, "3.0 KiB"), (3 << 29, "1.5 GiB")])
def test_bytes_are_told_in_binary_units(count, text):
    assert words.size(count) == text


def test_columns_are_as_wide_as_their_widest_cell_and_numbers_stand_right():
    rows = [("run", "images/s", "machine"), ("a longer name", "7", "")]
    assert words.columns(rows, [1]) == ["run            images/s  machine", "a longer name         7"]


def test_a_table_that_a_terminal_is_too_narrow_for_goes_on_below_indented():
    rows = [
        ("case", "base", "other", "why"),
        ("a" * 20, "12 s", "13 s", ""),
        ("b", "1 s", "2 s", "memory " * 3),
    ]
    told = words.columns(rows, [1], width=30)
    assert told[:4] == ["case                  base", "  other  why", "a" * 20 + "  12 s", "  13 s"]
    assert told[4:] == ["b                      1 s", "  2 s    memory memory memory"]
    assert words.columns(rows, [1], width=200) == words.columns(rows, [1])
    long = [("a", "b"), ("c", "why " * 30)]
    assert words.columns(long, width=40) == words.columns(long), "the last column is broken by `fitted`"


def test_text_is_broken_at_spaces_where_a_terminal_needs_it(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "20")
    path = "runs/" + "x" * 30
    assert words.fitted(f"  seven words that go on below\n{path}", Terminal()).splitlines() == [
        "  seven words that", "    go on below", path
    ]  # fmt: skip
    assert words.room(Terminal()) == 20 and words.room(io.StringIO()) is None
    assert words.fitted("x y " * 20, io.StringIO()) == "x y " * 20


@pytest.mark.parametrize(("counts", "text"), [([36], "36"), ([36, 5, 60], "5 to 60"), ([1000], "1,000")])
def test_a_span_is_its_least_and_its_most(counts, text):
    assert words.span(counts) == text


def test_the_command_to_go_on_with_is_one_that_a_shell_takes_however_long_it_is():
    given = ["train", "--config=mine.yaml", "--model.stage_widths=[32, 64]", f"--run.dir={'x' * 70}", "-v"]
    told = words.then(*given)
    assert (
        told.startswith("next      fastresnet train --config=mine.yaml '--model.") and told.count("\n") == 2
    )
    assert shlex.split(told.replace("\\\n", "")) == ["next", "fastresnet", *given]
    assert max(len(line) for line in told.splitlines() if "xx" not in line) < 80
