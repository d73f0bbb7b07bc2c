"""What a person sees while a run trains: notes, a live line on a terminal, a line an epoch.

Notes and the live line go to standard error; the lines of epochs, which people redirect and grep, to
standard output. A line that is rewritten needs no rich, whose output ends with the terminal. Measures and
decides nothing.
"""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO, cast

from fastresnet.base import words
from fastresnet.reports.finished import Row

LIVE_SECONDS = 0.5  # between rewrites of the live line
PLAIN_SECONDS = 10.0  # between status lines where there is no terminal
LONG_RUN_SECONDS = 1800.0  # on a CPU, a run expected to last longer gets told which recipe suits a CPU
ADVICE_STEPS = 5  # steps to watch before saying so


class Progress:
    """Prints a run's progress. A terminal or file that can't be written any more doesn't end the run.

    mode:    auto (a live line if `err` is a terminal), plain (status lines), off (errors alone)
    peek:    whether a running loss may be read in the middle of an epoch: free on a CPU, a wait on a GPU
    """

    def __init__(
        self, mode: str = "auto", *, peek: bool = False, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self.out, self.err = out or sys.stdout, err or sys.stderr
        self.silent = mode == "off"
        self.live = mode == "auto" and self.err.isatty()
        self.peek = peek
        self._lost: set[TextIO] = set()
        self._line_length = 0
        self._shown_at = 0.0
        self._advised = False

    def _print(self, line: str, stream: TextIO, end: str = "\n") -> None:
        """Write to a stream while it lasts: a closed pipe or a full disk is told once, on the other one."""
        if stream in self._lost:
            return
        try:
            stream.write(line + end)
            stream.flush()
        except (OSError, ValueError) as error:  # ValueError: a closed file
            self._lost.add(stream)
            name, other = ("output", self.err) if stream is self.out else ("error", self.out)
            reason = getattr(error, "strerror", None) or error
            self._print(f"standard {name} is lost ({reason}): the run goes on without it", other)

    def start(
        self, *, epochs: float, total_steps: int, batch_size: int, first_step: int, advise: bool
    ) -> None:
        """The training begins at `first_step`; `advise` allows the word about slow runs on a CPU."""
        self.epochs, self.total_steps, self.batch_size = epochs, total_steps, batch_size
        self._began = self._shown_at = time.monotonic()
        self._first_step, self._advised = first_step, not advise

    def note(self, line: str) -> None:
        """One choice or event the user should know of."""
        if not self.silent:
            self._clear()
            self._print(line, self.err)

    def banner(self, lines: str) -> None:
        """What mustn't be missed, even with progress off."""
        self._clear()
        rows = lines.splitlines()
        width = max(map(len, rows))
        edge = "!" * (width + 6)
        self._print("\n".join(["", edge, *(f"!! {row:<{width}} !!" for row in rows), edge, ""]), self.err)

    def step(self, epoch: int, step: int, loss: float | None) -> None:
        """After each step; prints now and then. `loss`: the epoch's mean so far, None where unknown."""
        if self.silent:
            return
        now = time.monotonic()
        done = step - self._first_step
        if not self._advised and done >= ADVICE_STEPS:
            self._advise(now - self._began, done)
        if now - self._shown_at < (LIVE_SECONDS if self.live else PLAIN_SECONDS):
            return
        self._shown_at = now
        per_step = (now - self._began) / max(done, 1)
        text = (
            f"epoch {epoch + 1}/{self.epochs:g}  step {step}/{self.total_steps}"
            + (f"  loss {loss:.3f}" if loss is not None else "")
            + f"  {self.batch_size / per_step:,.0f} images/s"
            + f"  left {words.duration(per_step * (self.total_steps - step))}"
        )
        if self.live:
            self._clear()
            self._print(text, self.err, end="")
            self._line_length = len(text)
        else:
            self._print("  " + text, self.err)

    def epoch(self, row: Row, seconds_left: float) -> None:
        """One aligned line for a finished epoch; `row` is its entry of `per_epoch`."""
        if self.silent:
            return
        self._clear()
        cells = [f"epoch {row['epoch']:>3}/{self.epochs:g}", f"loss {row['train_loss']:.3f}"]
        measured = {
            split: cast(dict[str, Any], row)[f"{split}_accuracy"] for split in ("train", "val", "test")
        }
        cells += [f"{split} {100 * share:5.2f} %" for split, share in measured.items() if share is not None]
        cells += [
            f"lr {row['lr']:.4g}",
            f"{row['images_per_second']:,.0f} images/s",
            f"left {words.duration(max(seconds_left, 0))}",
        ]
        self._print("  ".join(cells), self.out)

    def say(self, line: str) -> None:
        """One line of the result, on standard output."""
        self._clear()
        if not self.silent:
            self._print(line, self.out)

    def _advise(self, seconds: float, steps: int) -> None:
        self._advised = True
        expected = seconds / steps * (self.total_steps - self._first_step)
        if expected > LONG_RUN_SECONDS:
            self.note(
                f"this run will take about {words.duration(expected)} on this CPU; `--config cpu.yaml` suits "
                "a CPU and learns in minutes"
            )

    def _clear(self) -> None:
        if self._line_length:
            self._print("\r" + " " * self._line_length + "\r", self.err, end="")
            self._line_length = 0
