"""The watchdog's second: a small process that ends its parent where the parent's watchdog no longer runs.

Runs alone (`python -I -S sentry.py PARENT SIGNAL FILE`) and needs the standard library only. On standard
input the watchdog writes a line a second, `<seconds of patience> <last words>`; standard output is the file
into which the parent's `faulthandler` writes stack traces when it gets SIGNAL, for which it needs no lock.
Refuses to count time in which the parent is stopped, or in which it couldn't run itself.
"""

import os
import select
import signal
import sys
import time

TICK = 0.25  # s
GRACE = 2.0  # s, for the traces


def main(parent: int, number: int, file: str) -> None:
    """Watch until the parent closes the pipe or is gone."""
    patience, told = float("inf"), ""
    quiet, last = 0.0, time.monotonic()
    while os.getppid() == parent:
        heard = select.select([0], [], [], TICK)[0]
        now = time.monotonic()
        quiet, last = quiet + (0.0 if is_stopped(parent) else min(now - last, 2 * TICK)), now
        if heard:
            text = os.read(0, 65536)
            if not text:
                return
            first, _, told = text.decode().strip().rpartition("\n")[2].partition(" ")
            patience, quiet = float(first), 0.0
        if quiet > patience:
            return end(parent, number, file, told)


def is_stopped(process: int) -> bool:
    """Whether a process was stopped (SIGSTOP, Ctrl-Z, a debugger), or is no more."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "TtZX"
    except OSError:
        return True


def end(parent: int, number: int, file: str, told: str) -> None:
    """Take the parent's stack traces, write them down, and kill it: it can't end itself."""
    os.kill(parent, number)
    time.sleep(GRACE)
    traces = os.pread(1, 2**20, 0)
    try:
        with open(file, "wb") as kept:
            kept.write(traces)
    except OSError:
        pass
    os.kill(parent, signal.SIGKILL)
    os.write(2, traces + f"{told}\n".encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
