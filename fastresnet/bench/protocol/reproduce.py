"""Reproduce a recipe's figure by the measuring protocol:
`python benchmarks/reproduce.py --config speed94.yaml --runs 200`.

A fixed number of runs with seeds 0 to n-1, every one logged and counted; beside a rival, if one is named
(--versus), turn by turn. Ends with benchmarks/records/<date>-<recipe>-<device>/record.json and its README.md.
Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import multiprocessing
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fastresnet.base import files, words
from fastresnet.bench import places
from fastresnet.bench.protocol import protocol, record_page
from fastresnet.bench.protocol.runlog import RunLog, unfinished
from fastresnet.machine import hardware, timing
from fastresnet.machine.devices import choose_device
from fastresnet.runs import record
from fastresnet.settings.command_line import parse_args
from fastresnet.settings.config import Config
from fastresnet.settings.reading import RECIPES


def options(parser: argparse.ArgumentParser) -> None:
    """What this script knows beside the settings."""
    parser.add_argument(
        "--runs", type=int, default=5, metavar="N", help="how many, fixed before the first (5)"
    )
    parser.add_argument("--target", type=float, metavar="SHARE", help="accuracy to exceed (eval.target)")
    parser.add_argument("--versus", metavar="CMD", help="a rival's command, run in turn")
    parser.add_argument("--versus-name", metavar="NAME", help="what to call the rival (the command)")
    parser.add_argument("--versus-published", metavar="TEXT", help="its published figure and machine")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the record's folder")
    parser.add_argument(
        "--allow-dirty",
        action="store_true",
        help="measure uncommitted code; the result is marked and is no record",
    )
    parser.add_argument("--commit", metavar="HASH", help="of this tree, where its git folder stayed behind")
    parser.add_argument(
        "--parallel",
        type=int,
        default=1,
        metavar="K",
        help="K runs at once: statistics of accuracy alone, no times",
    )


def main(argv: list[str] | None = None) -> int:
    """Measure, write the record, print its line and its JSON. Exit code 1 where the target was missed."""
    cfg, asked = parse_args(argv, __doc__ or "", options, default="speed94.yaml")
    target = asked.target if asked.target is not None else cfg.eval.target
    _check(asked, target)
    git = _stated(hardware.git_state(Path(__file__).parent), asked.commit)
    if git["dirty"] and not asked.allow_dirty:
        raise ValueError(
            "tracked files differ from the commit: a record names the code that made it. Commit first, "
            "or measure with --allow-dirty, which makes no record"
        )
    cfg = cfg.replace({"run.save_checkpoints": False, "run.report": False}, origin="reproduce.py")
    machine = hardware.describe()
    header = {
        "recipe": cfg.recipe,
        "config": _learned(cfg),
        "commit": git["commit"],
        "dirty": git["dirty"],
        "runs": asked.runs,
        "target": target,
        "versus": asked.versus,
        "machine": hardware.short_name(machine),
        "torch": torch.__version__,
        "timed": asked.parallel == 1,
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
    }
    log = RunLog(_folder(cfg, asked.out, header), header)
    say(
        f"{len(log.of('own'))} of {asked.runs} runs done before, in {log.path.parent}"
        if log.rows
        else f"into {log.path.parent}"
    )
    prepared = protocol.prepare(cfg)
    if asked.parallel > 1:
        _run_in_parallel(cfg, log, asked.runs, asked.parallel)
    else:
        _run_in_turn(prepared, log, asked.runs, asked.versus)
    made = record_page.assemble(
        cfg, log, prepared, machine, git, rival=_rival(asked), published=published(cfg.recipe)
    )
    return _finish(made, log.path.parent, dirty=bool(git["dirty"]))


def _check(asked: argparse.Namespace, target: float | None) -> None:
    if asked.runs < 1:
        raise ValueError(f"--runs must be at least 1, got {asked.runs}")
    if asked.parallel < 1:
        raise ValueError(f"--parallel must be at least 1, got {asked.parallel}")
    if asked.parallel > 1 and asked.versus:
        raise ValueError(
            "--parallel measures no times, so --versus has nothing to compare with: leave one out"
        )
    if target is not None and not 0 < target < 1:
        raise ValueError(f"--target must lie between 0 and 1, got {target:g} (a share, not percent)")


def _stated(git: dict[str, Any], commit: str | None) -> dict[str, Any]:
    """The state of the work tree, or the commit that the caller states for a tree that came without git."""
    if commit is None:
        return git
    if git["commit"] is not None and not git["commit"].startswith(commit):
        raise ValueError(f"--commit {commit}: this work tree is at {git['commit']}")
    return {"commit": git["commit"] or commit, "dirty": bool(git["dirty"])}


def _learned(cfg: Config) -> dict[str, Any]:
    """The settings as a record keeps them: all but where files lie, which says nothing of the run."""
    kept = cfg.to_dict()
    for key in ("root", "train", "test", "betons"):
        kept["data"].pop(key)
    for key in ("dir", "resume", "progress"):
        kept["run"].pop(key)
    return kept


def _folder(cfg: Config, out: Path | None, header: dict[str, Any]) -> Path:
    if out is not None:
        return out
    device = (
        header["machine"]
        if choose_device(cfg.run.device).type == "cuda"
        else hardware.short_name({"cpu": hardware.describe()["cpu"]})
    )
    suffix = f"{cfg.recipe}-{slug(device)}" + ("-dirty" if header["dirty"] else "")
    return unfinished(places.RECORDS, suffix) or places.RECORDS / f"{header['date']}-{suffix}"


def slug(text: str) -> str:
    """`1x NVIDIA H200` -> `1x-nvidia-h200`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def published(recipe: str) -> dict[str, Any] | None:
    """What the head of a shipped recipe says its authors published, or None."""
    path = RECIPES / f"{recipe}.yaml"
    head = (
        re.search(r"^# Published: ((?:.*\n#)*?.*)\n(?!#)", path.read_text(encoding="utf-8"), re.M)
        if path.exists()
        else None
    )
    return {"source": " ".join(head[1].replace("\n#", " ").split()), "machine": None} if head else None


def _rival(asked: argparse.Namespace) -> dict[str, Any] | None:
    if asked.versus is None:
        return None
    told = {"source": asked.versus_published, "machine": None} if asked.versus_published else None
    return {"name": asked.versus_name or asked.versus, "published": told}


# ---- the runs -------------------------------------------------------------------------------------


def _run_in_turn(prepared: protocol.Prepared, log: RunLog, runs: int, versus: str | None) -> None:
    began, done = timing.now("cpu"), 0
    turns = [(who, seed) for seed in range(runs) for who in (("own", "rival") if versus else ("own",))]
    left = [turn for turn in turns if not log.done(*turn)]
    for who, seed in left:
        row = protocol.run_once(prepared, seed) if who == "own" else protocol.run_rival(versus or "", seed)
        log.add(who, row)
        done += 1
        _say_row(who, row, (timing.now("cpu") - began) / done * (len(left) - done))


def _run_in_parallel(cfg: Config, log: RunLog, runs: int, workers: int) -> None:
    """Processes share the device; each has its own experiment and takes the next seed when it is free."""
    seeds = [seed for seed in range(runs) if not log.done("own", seed)]
    threads = max(1, torch.get_num_threads() // workers) if choose_device(cfg.run.device).type == "cpu" else 0
    shared = cfg.replace({"run.threads": threads}, origin="--parallel")
    began = timing.now("cpu")
    with concurrent.futures.ProcessPoolExecutor(
        min(workers, max(1, len(seeds))), multiprocessing.get_context("spawn"), _begin_worker, (shared,)
    ) as pool:
        waiting = [pool.submit(_run_in_worker, seed) for seed in seeds]
        for done, future in enumerate(concurrent.futures.as_completed(waiting), 1):
            log.add("own", future.result())
            _say_row("own", future.result(), (timing.now("cpu") - began) / done * (len(seeds) - done))


_worker: list[protocol.Prepared] = []  # of a process of the pool: made once, used for all its seeds


def _begin_worker(cfg: Config) -> None:
    _worker.append(protocol.prepare(cfg))


def _run_in_worker(seed: int) -> dict[str, Any]:
    return protocol.run_once(_worker[0], seed, timed=False)


def _say_row(who: str, row: dict[str, Any], left: float) -> None:
    best = row["accuracy_tta"] if row["accuracy_tta"] is not None else row["accuracy"]
    what = f"{100 * best:6.2f} %" if best is not None else row.get("message", "no accuracy told")
    seconds = row["seconds"]["total"]
    took = f"  {words.duration(seconds)}" if seconds is not None else ""
    throttled = (row.get("condition") or {}).get("throttle")
    say(
        f"{who:<5} seed {row['seed']:<4} {row['status']:<6} {what}{took}  left {words.duration(left)}"
        + (f"  THROTTLED: {', '.join(throttled)}" if throttled else "")
    )


def say(line: str) -> None:
    """Progress goes to standard error, where it doesn't mix with the result."""
    print(line, file=sys.stderr, flush=True)


# ---- the end --------------------------------------------------------------------------------------


def _finish(made: dict[str, Any], folder: Path, dirty: bool) -> int:
    name = "measured-dirty.json" if dirty else "record.json"  # code that no commit holds makes no record
    record.write(folder / name, made)
    files.write_text(folder / "README.md", record_page.page(made))
    for line in _verdict(made):
        say(line)
    print(record.line(made))
    print(record.dumps(made))
    return 1 if made["summary"]["target_met"] is False else 0


def _verdict(made: dict[str, Any]) -> Iterator[str]:
    summary, target = made["summary"], made["target"]
    if summary["failed"]:
        yield f"{summary['failed']} of {summary['failed'] + summary['n']} runs diverged and count as failures"
    if target is not None:
        p = summary["p_value"]
        yield (
            f"target {100 * target:g} %: {record_page.judgement(summary)}"
            + (f" (p = {p:.2g})" if p is not None else " (a test needs two runs)")
        )
