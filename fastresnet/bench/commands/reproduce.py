"""Reproduce a recipe's figure by the measuring protocol:
`python benchmarks/reproduce.py --config speed94.yaml --runs 200`.

A fixed number of runs with seeds 0 to n-1, every one logged and counted; beside rivals, if some are named
(--versus, one or more), turn by turn. Until all are done they lie in runs/records, then the record moves to
benchmarks/records/<date>-<recipe>-<device>. Interrupted, or stopped by --seconds, the same command goes on.
Started by torchrun, each process runs whole runs on a device of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastresnet.base import exits, files, words
from fastresnet.bench.protocol import beside, protocol, record_page, reproduce, rival, runlog, start_up
from fastresnet.bench.protocol.beside import Seat
from fastresnet.bench.protocol.record_page import Published, Rival
from fastresnet.machine import software
from fastresnet.machine.distributed import described
from fastresnet.machine.software import GitState
from fastresnet.reports import telling
from fastresnet.runs import record
from fastresnet.runs.progress import Heartbeat
from fastresnet.series import rows
from fastresnet.series.rows import Row
from fastresnet.settings.command_line import number, parse_args
from fastresnet.settings.config import Config
from fastresnet.settings.reading import RECIPES
from fastresnet.settings.rule import Rule


def options(parser: argparse.ArgumentParser) -> None:
    """What this command knows beside the settings."""
    add, count = parser.add_argument, number(Rule(kind=int, low=1, high=100_000))
    add("--runs", type=count, default=5, metavar="N", help="how many, fixed before the first (5)")
    add("--target", type=float, metavar="SHARE", help="accuracy to exceed (eval.target)")
    many: dict[str, Any] = {"action": "append", "default": []}
    add("--versus", metavar="CMD", help="a rival's command, run in turn; may be given again", **many)
    add("--versus-name", metavar="NAME", help="what to call it (the command); as often as --versus", **many)
    add("--versus-published", metavar="TEXT", help="its published figure and machine; likewise", **many)
    add("--versus-runs", type=count, metavar="N", help="of each rival, spread over ours (as many as ours)")
    add("--out", type=Path, metavar="DIR", help="the record's folder")
    add(
        "--seconds",
        type=number(Rule(kind=float, above=0)),
        metavar="S",
        help="stop before a run that would end later; the same command goes on",
    )
    add(
        "--allow-dirty",
        action="store_true",
        help="measure uncommitted code; the result is marked and is no record",
    )
    add("--commit", metavar="HASH", help="of this tree, where its git folder stayed behind")
    add(
        "--parallel",
        type=count,
        default=1,
        metavar="K",
        help="K runs at once: statistics of accuracy alone, no times",
    )
    add(
        "--start-up",
        choices=(start_up.MEASURED, start_up.ONLY, start_up.SKIPPED),
        help="seconds to the first run's clock, in fresh processes, caches cold and warm: measured before "
        "the first run, skipped (so with --seconds), or only: in this process, without a run",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write the record, print its line and its JSON. Exit code 1 where the target was missed.

    Under torchrun, for which that would be a process that failed, it is 0.
    """
    cfg, asked = parse_args(argv, __doc__ or "", options, default="speed94.yaml")
    ask = _ask(asked, cfg)
    cfg = reproduce.own_settings(cfg)
    with beside.started(ask.parallel, _measured, cfg, ask, asked):
        made = _measured(cfg, ask, asked)
    if made is None:
        return exits.DONE
    _say(made)
    missed = made["summary"]["target_met"] is False
    return exits.FAILED if missed and described().size == 1 else exits.DONE


def _measured(cfg: Config, ask: reproduce.Ask, asked: argparse.Namespace) -> dict[str, Any] | None:
    """The record, as far as its runs are done when the time is up; None in all processes but the first."""
    with beside.seated(cfg, asdict(ask), shared=ask.parallel > 1) as seat:
        if ask.seconds and not seat.timed:
            raise ValueError(
                "--seconds can't plan runs that share a device, which aren't timed: leave it out"
            )
        if not seat.is_first:
            reproduce.Making(ask, seat, None).run(lambda *row: None)
            return None
        header = reproduce.header_of(cfg, ask, seat.timed)
        if asked.start_up == start_up.ONLY:
            print(json.dumps(reproduce.Making(ask, seat, None).prepare().off_clock_seconds))
            return None
        work, home = reproduce.folders(cfg, asked.out, header)
        with runlog.claimed(work):
            return _made(ask, seat, asked, runlog.RunLog(work, header), home)


def _made(
    ask: reproduce.Ask, seat: Seat, asked: argparse.Namespace, log: runlog.RunLog, home: Path
) -> dict[str, Any]:
    done, work = len(log.of("own")), log.path.parent
    say(f"{done} of {ask.runs} runs done before, in {work}" if done else f"into {work}")
    making = reproduce.Making(ask, seat, log)
    with Heartbeat(making.where, quiet=seat.cfg.run.progress == "off") as heart:
        try:
            prepared = making.run(lambda who, row, left: heart.say(_told(who, row, left)))
        except KeyboardInterrupt:
            if log.of("own") and making.prepared is not None:
                _keep(log, making.prepared, asked, work)
                say(f"interrupted; what is done is in {work}, and the same command goes on")
            raise
    return _keep(log, prepared, asked, home)


def _ask(asked: argparse.Namespace, cfg: Config) -> reproduce.Ask:
    """The options, checked. Raises ValueError for what can't be."""
    target = asked.target if asked.target is not None else cfg.eval.target
    if described().size > 1 and (asked.parallel > 1 or asked.versus):
        wrong = "--versus takes turns" if asked.versus else "--parallel starts them itself"
        raise ValueError(f"{wrong}, and torchrun has started several processes already: leave one out")
    if asked.parallel > 1 and (asked.versus or asked.seconds):
        wrong = "--versus has nothing to compare with" if asked.versus else "--seconds can't plan"
        raise ValueError(f"--parallel measures no times, so {wrong}: leave one out")
    if target is not None and not 0 < target < 1:
        raise ValueError(f"--target must lie between 0 and 1, got {target:g} (a share, not percent)")
    for command in asked.versus:
        rival.check(command)
    turns = _turns(asked)
    starts = _times_starts(asked)
    git = stated(software.git_state(), asked.commit)
    if git["dirty"] and not asked.allow_dirty:
        raise ValueError(
            "tracked files differ from the commit: a record names the code that made it. Commit first, "
            "or measure with --allow-dirty, which makes no record"
        )
    versus = tuple(asked.versus)
    return reproduce.Ask(asked.runs, target, git, versus, turns, asked.seconds, asked.parallel, starts)


def _turns(asked: argparse.Namespace) -> int:
    """How often each rival runs. Raises ValueError where its options don't fit together."""
    rivals = len(asked.versus)
    for option in ("--versus-name", "--versus-published"):
        told = len(getattr(asked, option[2:].replace("-", "_")))
        if told not in (0, rivals):
            raise ValueError(f"{option} is there for each --versus or for none, got {told} for {rivals}")
    if asked.versus_runs and not rivals:
        raise ValueError(f"--versus-runs={asked.versus_runs}: no --versus")
    if (asked.versus_runs or 0) > asked.runs:
        raise ValueError(f"--versus-runs={asked.versus_runs}: a rival takes turns with --runs={asked.runs}")
    return (asked.versus_runs or asked.runs) if rivals else 0


def _times_starts(asked: argparse.Namespace) -> bool:
    """Whether fresh processes are timed. Raises ValueError where none has its device for itself."""
    shared = asked.parallel > 1
    what = asked.start_up or (start_up.SKIPPED if asked.seconds or shared else start_up.MEASURED)
    if (shared and what != start_up.SKIPPED) or (described().size > 1 and what == start_up.ONLY):
        raise ValueError(f"--start-up={what} times a process by itself: leave out --parallel and torchrun")
    return what == start_up.MEASURED


def stated(git: GitState, commit: str | None) -> GitState:
    """The state of the work tree, or the commit that the caller states for a tree that came without git."""
    if commit is None:
        return git
    if git["commit"] is not None and not git["commit"].startswith(commit):
        raise ValueError(f"--commit {commit}: this work tree is at {git['commit']}")
    return {"commit": git["commit"] or commit, "dirty": bool(git["dirty"])}


def published(recipe: str) -> Published | None:
    """What the head of a shipped recipe says its authors published, or None."""
    path = RECIPES / f"{recipe}.yaml"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    head = re.search(r"^# Published: ((?:.*\n#)*?.*)\n(?!#)", text, re.M)
    return {"source": " ".join(head[1].replace("\n#", " ").split()), "machine": None} if head else None


def _rivals(asked: argparse.Namespace) -> list[Rival]:
    sources = asked.versus_published or [""] * len(asked.versus)
    told: list[Published | None] = [{"source": one, "machine": None} if one else None for one in sources]
    names = asked.versus_name or asked.versus
    return [{"name": name, "published": one} for name, one in zip(names, told, strict=True)]


# ---- the end -----------------------------------------------------------------------------------------------


def _keep(
    log: runlog.RunLog, prepared: protocol.Prepared, asked: argparse.Namespace, home: Path
) -> dict[str, Any]:
    """Write what there is where the runs are logged; a whole record of committed code then moves home."""
    work, name = log.path.parent, prepared.experiment.cfg.recipe
    made = record_page.assemble(log, prepared, rivals=_rivals(asked), published=published(name))
    dirty = bool(made["git"]["dirty"])  # code that no commit holds makes no record
    record.write(work / (runlog.DIRTY if dirty else runlog.RECORD), made)
    files.write_text(work / "README.md", record_page.page(made))
    if work != home and not dirty and runlog.finished(work):
        home.parent.mkdir(parents=True, exist_ok=True)
        work = Path(shutil.move(work, home))
    say(f"written: {work / 'README.md'}")
    return made


def _say(made: dict[str, Any]) -> None:
    """The record in a line, and whole for whatever program reads it: a person has been told where it lies."""
    for line in _verdict(made):
        say(line)
    print(words.fitted(telling.line(made), sys.stdout))
    if not sys.stdout.isatty():
        print(record.dumps(made))


def _verdict(made: dict[str, Any]) -> Iterator[str]:
    summary, target = made["summary"], made["target"]
    if made["runs_done"] < made["runs_planned"]:
        yield f"{made['runs_done']} of {made['runs_planned']} runs done; the same command goes on"
    if summary["failed"]:
        yield f"{summary['failed']} of {made['runs_done']} runs diverged and count as failures"
    if target is not None:
        yield f"target {100 * target:g} %: {rows.judgement(summary, target, made['runs_planned'])}"


def _told(who: str, row: Row, left: float) -> str:
    """One run in one line, and how long the rest takes."""
    best = row["accuracy_tta"] if row["accuracy_tta"] is not None else row["accuracy"]
    what = f"{100 * best:6.2f} %" if best is not None else row.get("message", "no accuracy told")
    seconds, throttled = row["seconds"]["total"], row.get("condition", {}).get("throttle")
    took = f"  {words.duration(seconds)}" if seconds is not None else ""
    line = f"{who:<5} seed {row['seed']:<4} {row['status']:<6} {what}{took}  left {words.duration(left)}"
    return line + (f"  THROTTLED: {', '.join(throttled)}" if throttled else "")


def say(line: str) -> None:
    """Progress goes to standard error, where it doesn't mix with the result."""
    print(words.fitted(line, sys.stderr), file=sys.stderr, flush=True)
