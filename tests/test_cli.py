"""How scripts end: exit codes, one line for the user's mistakes, a traceback for ours."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastresnet.base.exits import exit_code
from fastresnet.settings.keys import ConfigError

ROOT = Path(__file__).parent.parent
PRINTING = "sys.exit(exits.exit_code(lambda: print(*sys.argv[1:])))"


def raises(error):
    def main():
        raise error

    return main


def test_a_main_that_returns_is_done(capsys):
    assert exit_code(lambda: None) == 0
    assert exit_code(lambda code: code, 1) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("error", "code", "line"), [
    (ValueError("train.epochs must be above 0,\n got 0"), 2, "error: train.epochs must be above 0, got 0\n"),
    (ConfigError("unknown key a.b"), 2, "error: unknown key a.b\n"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "gone.beton"),
     2, "error: gone.beton: No such file or directory\n"),
    (OSError(errno.ENOSPC, "No space left on device"), 2, "error: [Errno 28] No space left on device\n"),
    (RuntimeError("the loss became nan"), 1, "error: the loss became nan\n"),
    (KeyboardInterrupt(), 130, "interrupted\n"),
])  # fmt: skip
def test_what_went_wrong_is_one_line_and_an_exit_code(capsys, error, code, line):
    assert exit_code(raises(error)) == code
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("main", [raises(KeyError("x")), lambda: np.zeros(3).reshape(2), lambda: int("x")])
def test_a_bug_keeps_its_traceback_and_is_a_failure(capsys, main):
    assert exit_code(main) == 1
    assert capsys.readouterr().err.startswith("Traceback")


def test_a_reader_that_leaves_early_is_no_traceback():
    code = (
        "import sys\n"
        "from fastresnet.base.exits import exit_code\n"
        "def main():\n"
        "    for _ in range(100000): print('line')\n"
        "sys.exit(exit_code(main))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    with process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize("script", sorted(p.name for p in (ROOT / "scripts").glob("*.py")))
def test_every_script_helps_and_refuses_an_unknown_option_in_one_line(script, call_script):
    code, out, err = call_script(f"scripts/{script}", "--help")
    assert code == 0 and out.startswith("usage: ") and err == ""
    code, out, err = call_script(f"scripts/{script}", "--no-such-option")
    assert code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1


def test_the_end_of_memory_is_one_line(capsys):
    assert exit_code(raises(MemoryError())) == 1
    assert capsys.readouterr() == ("", "error: out of memory\n")


def test_the_end_of_threads_is_one_line(capsys):
    started = compile('raise RuntimeError("can\'t start new thread")', "/lib/threading.py", "exec")
    assert exit_code(lambda: exec(started)) == 1
    assert capsys.readouterr() == (
        "",
        "error: no thread can be started: memory is at its end, or ulimit -u\n",
    )


@pytest.mark.parametrize(("redirected", "code", "said"), [
    ("> /dev/full", 2, "error: [Errno 28] No space left on device\n"),
    (">&-", 0, ""),
    ("2>&-", 0, ""),
    (">&- 2>&-", 0, ""),
])  # fmt: skip
def test_an_output_that_is_full_or_closed_is_no_traceback(redirected, code, said):
    command = f"{sys.executable} -c 'import sys; from fastresnet.base import exits; {PRINTING}' {redirected}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (code, said)


def test_a_name_that_is_no_utf8_can_be_printed_where_only_utf8_may_be():
    code = "import sys; from fastresnet.base import exits; " + PRINTING
    done = subprocess.run(
        [sys.executable, "-c", code, b"\xff.png"],
        capture_output=True, cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\udcff.png\n", b"")
