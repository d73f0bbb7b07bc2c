"""How every script ends, and is asked to: 0 done, 1 it failed, 2 the user's input is wrong, 130 interrupted.

The user's mistakes are one line on standard error, never a traceback.
"""

from __future__ import annotations

import contextlib
import dis
import io
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import ParamSpec

from fastresnet.base.sinks import for_terminal

PACKAGE = Path(__file__).parents[1]
P = ParamSpec("P")
DONE, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
NO_THREAD = "can't start new thread"  # Python's words, which it has no error of its own for
AGAIN_SECONDS = 1.0  # a launcher passes on to its processes what the terminal has told them already


def exit_code(main: Callable[P, object], *arguments: P.args, **keywords: P.kwargs) -> int:
    """Call a command's main; the exit code of its process (what `main` gives, None counts as 0).

    A ValueError that our own code raised, and any OSError, is the user's input: one line, exit 2.
    A RuntimeError that our own code raised (a run that diverged, say) is one line, exit 1; so is the end of
    memory and of threads.
    Anything else keeps its traceback, exit 1; SystemExit passes through.
    """
    _ready_outputs()
    try:
        code = main(*arguments, **keywords)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except KeyboardInterrupt as stop:
        if _speaks_for_all():
            print(for_terminal(stop) or "interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output left (`| head`): nothing more can be said there
        _drop_unwritable()
        return FAILED
    except OSError as error:
        _drop_unwritable()
        named = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        return one_line(named, USER_ERROR)
    except MemoryError:
        return one_line("out of memory", FAILED)
    except (ValueError, RuntimeError) as error:
        ending = USER_ERROR if isinstance(error, ValueError) else FAILED
        if isinstance(error, OfAll) and not _speaks_for_all():
            return ending
        if is_ours(error, Path(main.__code__.co_filename).parent):
            return one_line(str(error), ending)
        if str(error) == NO_THREAD:
            return one_line("no thread can be started: memory is at its end, or ulimit -u", FAILED)
        traceback.print_exc()
        return FAILED
    except Exception:
        traceback.print_exc()
        return FAILED


def _speaks_for_all() -> bool:
    """Whether this is the only process or torchrun's first: what befalls them together is said once."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def one_line(message: str, code: int) -> int:
    """Say on standard error, in one line, what went wrong; gives the exit code."""
    print("error:", for_terminal(" ".join(message.split())), file=sys.stderr)
    return code


def _ready_outputs() -> None:
    """Names that are no UTF-8 are shown as codes; an output that was closed at the start takes words too."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_unwritable() -> None:
    """What standard output can't take is thrown away: Python would try again at its end, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_ours(error: BaseException, beside: Path = PACKAGE) -> bool:
    """Whether a `raise` in the package, or in a file of this folder, made it.

    What a library raises is our bug.
    """
    last = error.__traceback__
    assert last is not None
    while last.tb_next is not None:
        last = last.tb_next
    code = last.tb_frame.f_code
    by_raise = dis.opname[code.co_code[last.tb_lasti]] == "RAISE_VARARGS"  # not by a C function called there
    return by_raise and any(Path(code.co_filename).is_relative_to(home) for home in (PACKAGE, beside))


class OfAll(Exception):
    """What every process of a job raises alike: the first says it for all."""


class Interrupted(KeyboardInterrupt):
    """The user stopped the run, and all that continuing needs is on the disk."""


class StopRequest:
    """A signal asks for a stop at the next step; another one, a second later or more, stops at once.

    answer:  what standard error says right away, from a thread: Python's own handler waits for the operation
             that is under way, which may take seconds
    """

    answer = "stopping after this step; again to stop now"

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0

    def __enter__(self) -> StopRequest:
        self._before = {}
        for number in [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]:
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread (a notebook's worker): Ctrl-C keeps its usual meaning
                return self
        self._heard, self._told = socket.socketpair()
        self._told.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            signal.set_wakeup_fd(self._fd_before)
            self._told.shutdown(socket.SHUT_RDWR)  # closing alone doesn't end it: a forked worker has it too
            self._told.close()
            self._thread.join()
            self._heard.close()

    def _listen(self) -> None:
        """Answer the first of our signals, whose numbers the system writes, until the other end is closed."""
        answered = not _speaks_for_all()
        while numbers := self._heard.recv(64):
            if not answered and self._before.keys() & set(numbers):
                answered = True
                line = ("\n" if sys.stderr.isatty() else "") + self.answer
                with contextlib.suppress(OSError, ValueError):  # a terminal that is gone, or closed
                    print(line, file=sys.stderr, flush=True)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked and now - self._asked_at >= AGAIN_SECONDS:
            raise KeyboardInterrupt
        self.asked, self._asked_at = True, now if not self.asked else self._asked_at
