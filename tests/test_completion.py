"""Completion in the shell: what bash offers for the last word, and what zsh makes of a line and a TAB."""

import contextlib
import io
import os
import pty
import select
import shlex
import shutil
import subprocess
import time

import pytest

from fastresnet import __main__ as command

pytest.importorskip("shtab", reason="completion is an extra")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """A file with the script of each shell."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh"):
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            assert command.main(["--completion", shell]) == 0
        (folder / shell).write_text(told.getvalue(), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("line", "offered"), [
    ("tr", {"train"}),
    ("re", {"report", "reproduce"}),
    ("train --config cpu", {"cpu.yaml"}),
    ("train --config min", {"mine.yaml"}),  # a file here
    ("train --train.epo", {"--train.epoch_share", "--train.epochs"}),
    ("train --see", {"--seeds"}),
    ("train --config cpu.yaml --train.precision b", {"bf16"}),
    ("train --train.channels_last t", {"true"}),
    ("search --data.so", {"--data.source"}),
    ("bench --suite q", {"quick"}),
    ("evaluate --checkpoint runs/", {"runs/first"}),
    ("compare mine", {"mine.yaml"}),
    ("describe mo", {"model"}),
])  # fmt: skip
def test_bash_offers_commands_options_settings_recipes_values_and_files(script, tmp_path, line, offered):
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "mine.yaml").touch()
    words = ["fastresnet", *line.split()]
    code = (
        f"source {shlex.quote(str(script / 'bash'))}; COMP_WORDS=({shlex.join(words)}); "
        f'COMP_CWORD={len(words) - 1}; _shtab_fastresnet; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert set(done.stdout.split()) == offered, done.stderr


ZSHRC = """
autoload -Uz compinit; compinit -u -D
eval "$(cat {script})"
unsetopt auto_list beep
told() {{ print -r -- "$BUFFER" >>{told}; BUFFER= }}; zle -N told; bindkey '^X' told
zle-line-init() {{ : >>{told} }}; zle -N zle-line-init
"""
TAB, TELL = b"\t", b"\x18"  # the latter is what ZSHRC binds


def completed(lines, script, home, folder):
    """What stands on zsh's line after each of these and a TAB, typed on a terminal in `folder`."""
    told = home / "told"
    (home / ".zshrc").write_text(ZSHRC.format(script=script, told=told), encoding="utf-8")
    environment = {**os.environ, "ZDOTDIR": str(home), "TERM": "vt100"}
    ours, theirs = pty.openpty()
    how = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "cwd": folder, "env": environment}
    with subprocess.Popen(["zsh", "-d", "-i"], start_new_session=True, **how) as shell:
        os.close(theirs)
        keys, until = iter([line.encode() + TAB + TELL for line in lines]), time.monotonic() + 20
        waiting = 0  # for so many lines in `told`; for the file itself at first
        while time.monotonic() < until:
            if select.select([ours], [], [], 0.05)[0]:
                os.read(ours, 65536)  # what the terminal shows
            if told.exists() and told.read_text().count("\n") == waiting:
                if waiting == len(lines):
                    break
                os.write(ours, next(keys))
                waiting += 1
        shell.kill()
    os.close(ours)
    return [line.strip() for line in told.read_text(encoding="utf-8").splitlines()]


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh, which isn't installed")
def test_zsh_completes_commands_options_settings_recipes_values_and_files(script, tmp_path):
    home, folder = tmp_path / "home", tmp_path / "folder"
    home.mkdir()
    (folder / "runs" / "first").mkdir(parents=True)
    (folder / "mine.yaml").touch()
    wanted = {
        "tr": "train",
        "re": "rep",  # report or reproduce
        "train --config cpu": "train --config cpu.yaml",
        "train --config min": "train --config mine.yaml",
        "train --train.epochs": "train --train.epochs",
        "train --config cpu.yaml --train.precision b": "train --config cpu.yaml --train.precision bf16",
        "evaluate --checkpoint runs/f": "evaluate --checkpoint runs/first/",
        "describe mo": "describe model",
    }
    found = completed([f"fastresnet {line}" for line in wanted], script / "zsh", home, folder)
    assert found == [f"fastresnet {line}" for line in wanted.values()]
