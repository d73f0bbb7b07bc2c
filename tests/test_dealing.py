"""Work dealt out to processes, here threads with a store in memory; and records made so by torchrun."""

import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from launched import ROOT, torchrun, with_betons

from fastresnet.bench.commands import reproduce as command
from fastresnet.bench.protocol import beside, record_page
from fastresnet.machine import devices
from fastresnet.machine.distributed import World
from fastresnet.ranks import dealing
from fastresnet.ranks.agreement import Unlike
from fastresnet.ranks.dealing import Table
from fastresnet.ranks.lifesigns import Terminated
from fastresnet.series import rows
from fastresnet.settings import config

SETTINGS = [
    "--data.train=train.beton", "--data.test=test.beton", "--train.batch_size=50", "--train.epochs=1",
    "--train.precision=fp32", "--run.device=cpu",
]  # fmt: skip
REPRODUCE = [ROOT / "benchmarks" / "reproduce.py", "--config=smoke.yaml", "--out=out", "--allow-dirty"]
LOST = "error: rank 1 shows no sign of life; the same command goes on from what is kept"
RANK_1 = {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}

# The second process is killed in its second run, once; all else is the command.
KILLED = f"""
import os, pathlib, runpy, signal, sys
from fastresnet.bench.protocol import protocol

whole, mark, begun = protocol.run_once, pathlib.Path("killed"), []

def run_once(*given, **how):
    begun.append(given)
    if os.environ["RANK"] == "1" and len(begun) == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*given, **how)

protocol.run_once = run_once
runpy.run_path({str(ROOT / "benchmarks" / "reproduce.py")!r}, run_name="__main__")
"""


def together(work, count=2):
    """What `work(table)` gives in each of so many threads; the first error is raised."""
    store = dist.HashStore()
    with ThreadPoolExecutor(count) as pool:
        tables = [Table(World(rank, rank, count), store) for rank in range(count)]
        futures = [pool.submit(work, table) for table in tables]
        return [future.result(timeout=20) for future in futures]


# ---- a table -----------------------------------------------------------------------------------------------


def test_each_piece_is_done_once_by_who_is_free_and_the_first_hears_of_it():
    both, heard, done = threading.Barrier(2), [], {0: [], 1: []}

    def work(table):
        def do(piece):
            done[table.place.rank].append(piece)
            if len(done[table.place.rank]) == 1:
                both.wait(10)  # neither takes all
            yield piece, 0.1
            yield piece, 0.2

        table.share(list(range(7)), do, heard.append)
        return table.of_each(["after", table.place.rank])

    assert together(work) == [[["after", 0], ["after", 1]]] * 2
    assert sorted(done[0] + done[1]) == list(range(7)) and done[0] and done[1]
    assert sorted(heard) == [[piece, part] for piece in range(7) for part in (0.1, 0.2)]


def test_a_result_is_heard_while_its_process_still_works():
    heard = threading.Event()

    def do(piece):
        yield piece
        assert heard.wait(10), "kept until the end"

    together(lambda table: table.share([1], do, lambda result: heard.set()))


def test_what_the_first_can_not_keep_ends_its_part_and_says_why():
    taken = []

    def work(table):
        def full(result):
            raise OSError("No space left on device")

        def do(piece):
            taken.append(piece)
            yield piece
            heard_of_it.wait(0.5)

        heard_of_it = threading.Event()
        if table.place.is_main:
            table.share(list(range(100)), do, full)
        else:
            dealing._take(SimpleNamespace(add=lambda *of: 0), [], do, lambda: True)

    with pytest.raises(OSError, match="No space left"):
        together(work)
    assert len(taken) == 1


def test_alone_each_piece_is_done_in_turn_and_heard_at_once():
    order = []

    def do(piece):
        order.append(f"do {piece}")
        yield piece

    Table(World()).share("ab", do, lambda result: order.append(f"heard {result}"))
    assert order == ["do a", "heard a", "do b", "heard b"] and Table(World()).of_each(3) == [3]


def test_what_differs_is_named_in_all_processes():
    def work(table):
        with pytest.raises(Unlike, match=r"^rank 1 differs from rank 0: torch 2\.11\.0 against 2\.12\.0$"):
            table.agree({"torch": "2.11.0" if table.place.rank else "2.12.0", "runs": 7})

    together(work)


def test_signals_stop_the_block_once_though_torchrun_passes_them_on():
    before = signal.getsignal(signal.SIGTERM)
    for number, error in ((signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)):
        kept = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
        with pytest.raises(error), dealing._stopping():
            try:
                os.kill(os.getpid(), number)
            finally:
                os.kill(os.getpid(), number)
        for one, handler in kept.items():
            signal.signal(one, handler)
    with dealing._stopping():
        pass
    assert signal.getsignal(signal.SIGTERM) is before


# ---- seats -------------------------------------------------------------------------------------------------


def seats(changes, facts=({}, {})):
    """The seats of two processes with these settings."""

    def sit(table):
        return beside.seat_at(table, config.load(None, changes), facts[table.place.rank])

    return together(sit)


def test_runs_are_timed_where_each_has_its_device_for_itself(monkeypatch):
    monkeypatch.setattr(beside, "cores_usable", lambda: 6)
    assert devices.identity(torch.device("cpu")) == devices.identity(torch.device("cpu"))
    shared = seats({"run.device": "cpu"})
    assert [(one.timed, one.cfg.run.threads) for one in shared] == [(False, 3)] * 2, "one host's cores"
    monkeypatch.setattr(beside, "identity", lambda device: f"host {threading.get_ident()}")
    apart = seats({"run.device": "cpu"})
    assert [(one.timed, one.cfg.run.threads) for one in apart] == [(True, 6)] * 2
    assert [one.cfg.run.threads for one in seats({"run.device": "cpu", "run.threads": 1})] == [1, 1]


def test_each_process_has_the_gpu_of_its_place_unless_all_share_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H200")
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=device.index)
    )
    cfg = config.load(None, {"run.device": "cuda"})
    own = together(lambda table: beside.seat_at(table, cfg, {}))
    assert [(one.cfg.run.device, one.timed) for one in own] == [("cuda:0", True), ("cuda:1", True)]
    second = config.load(None, {"run.device": "cuda:1"})
    one = together(lambda table: beside.seat_at(table, second, {}, shared=True))
    assert [(each.cfg.run.device, each.timed) for each in one] == [("cuda:1", False)] * 2
    with pytest.raises(ValueError, match="2 processes can't share one GPU, take cuda"):
        together(lambda table: beside.seat_at(table, second, {}))


def test_one_process_keeps_its_settings():
    cfg = config.load(None, {"run.device": "cpu"})
    seat = beside.seat_at(Table(World()), cfg, {})
    assert seat.cfg is cfg and seat.timed and seat.is_first and seat.at_once == 1


def test_processes_that_would_measure_different_things_do_not_begin(monkeypatch):
    with pytest.raises(Unlike, match="rank 1 differs from rank 0: runs 4 against 3$"):
        seats({"run.device": "cpu"}, ({"runs": 3}, {"runs": 4}))
    with pytest.raises(Unlike, match="the training data's digest b against a"):
        together(lambda table: one_seat(table).agree_on({"digest": "ab"[table.place.rank]}))
    names = {}
    monkeypatch.setattr(beside, "_name", lambda device: names.setdefault(threading.get_ident(), len(names)))
    with pytest.raises(Unlike, match="differs from rank 0: device [01] against [01]$"):
        seats({"run.device": "cpu"})


def one_seat(table):
    return beside.Seat(table, config.load(None), timed=True)


@pytest.mark.parametrize("option", ["--versus=true", "--parallel=2"])
def test_what_does_not_go_with_several_processes_is_refused_in_one_line(monkeypatch, tmp_path, option):
    for name, value in RANK_1.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="torchrun has started several processes already: leave one out"):
        command.main(["--config=smoke.yaml", f"--out={tmp_path / 'out'}", option])
    assert not (tmp_path / "out").exists()


def test_a_record_says_how_many_runs_were_side_by_side_and_whether_they_were_timed():
    def told(total, *counts):
        made = [{"seconds": {"total": total}, "condition": {"runs_at_once": count}} for count in counts]
        return record_page._side_by_side({"condition": rows.conditions(made), "runs": made})

    assert told(1.0, 8, 8) == "8 runs side by side, each on a device of its own."
    assert told(None, 2, 4) == "2 to 4 runs side by side, on devices that they share, so not timed."
    assert told(1.0) == ""


# ---- torchrun ----------------------------------------------------------------------------------------------


def logged(folder):
    """The seeds in the log, in its order."""
    lines = (folder / "runs.jsonl").read_text().splitlines()[1:]
    return [json.loads(line)["seed"] for line in lines]


def made(folder):
    """The record, whether the code is committed or not."""
    return json.loads(next(path for path in folder.glob("*.json")).read_text())


@pytest.mark.slow(25)
def test_a_record_whose_second_process_is_killed_goes_on_with_every_seed_once(tmp_path):
    folder = with_betons(tmp_path)
    (folder / "killed.py").write_text(KILLED)
    words = ["--runs=6", *REPRODUCE[1:], *SETTINGS]
    cut = torchrun("killed.py", *words, cwd=folder)
    assert cut.returncode == 1 and (folder / "killed").exists(), cut.stderr
    assert LOST in cut.stderr and "fastresnet/bench" not in cut.stderr, cut.stderr
    before = logged(folder / "out")
    assert before and len(set(before)) == len(before) < 6
    whole = torchrun("killed.py", *words, cwd=folder)
    assert whole.returncode == 0, whole.stderr
    assert logged(folder / "out")[: len(before)] == before and sorted(logged(folder / "out")) == list(
        range(6)
    )
    kept = made(folder / "out")
    assert [row["seed"] for row in kept["runs"]] == list(range(6)) and kept["runs_done"] == 6
    assert {row["seconds"]["total"] for row in kept["runs"]} == {None}, "they share the cores"
    assert kept["condition"]["runs_at_once"] == [2, 2]
    assert "2 runs side by side" in (folder / "out" / "README.md").read_text()
    assert json.loads(whole.stdout.splitlines()[-1]) == kept and "into out" not in cut.stdout


@pytest.mark.slow(12)
def test_several_runs_at_once_on_one_device_are_those_that_come_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(with_betons(tmp_path))
    words = ["--config=smoke.yaml", "--allow-dirty", "--runs=2", *SETTINGS, "--run.threads=1"]
    assert command.main([*words, "--out=one"]) == command.main([*words, "--out=two", "--parallel=2"]) == 0
    assert not set(RANK_1) & set(os.environ), "torchrun's variables are gone with the processes"
    one, two = (made(tmp_path / out)["runs"] for out in ("one", "two"))
    assert [row["accuracy"] for row in one] == [row["accuracy"] for row in two]
    assert one[0]["seconds"]["total"] > 0 and two[0]["seconds"]["total"] is None


@pytest.mark.slow(12)
def test_a_search_over_two_processes_runs_each_seed_of_a_trial_once(tmp_path):
    folder = with_betons(tmp_path)
    (folder / "space.yaml").write_text("train.batch_size: [50, 5000]\n")
    words = ["--config=smoke.yaml", "--space=space.yaml", "--trials=4", "--seeds=2", "--objective=flops",
             "--out=out", *SETTINGS[:2], *SETTINGS[3:]]  # fmt: skip
    done = torchrun(ROOT / "benchmarks" / "search.py", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (folder / "out" / "trials.jsonl").read_text().splitlines()[1:]]
    ran = sorted((row["who"], row["seed"]) for row in lines)
    assert len(set(ran)) == len(ran) and {("trial 0", 0), ("trial 0", 1)} < set(ran)
    assert "can't run: train.batch_size=5000 is larger than the 303 images" in done.stdout
    assert {row["seconds"]["total"] for row in lines} == {None} and all(row["flops"] > 0 for row in lines)
    assert json.loads(done.stdout.splitlines()[-1])["runs"] >= 1, "the front, said once"
