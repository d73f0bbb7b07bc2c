"""Completion in the shell: what bash offers for the last word, by the script of `--completion bash`."""

import contextlib
import io
import shlex
import shutil
import subprocess

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


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tr", {"train"}),
        ("re", {"report", "reproduce"}),
        ("train --config cpu", {"cpu.yaml"}),
        ("train --config min", {"mine.yaml"}),  # a file here
        ("train --train.ep", {"--train.epochs"}),
        ("train --see", {"--seeds"}),
        ("train --config cpu.yaml --train.precision b", {"bf16"}),
        ("train --train.channels_last t", {"true"}),
        ("search --data.so", {"--data.source"}),
        ("bench --suite q", {"quick"}),
        ("evaluate --checkpoint runs/", {"runs/first"}),
        ("compare mine", {"mine.yaml"}),
        ("describe mo", {"model"}),
    ],
)
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


def test_zsh_can_read_its_script(script):
    text = (script / "zsh").read_text(encoding="utf-8")
    assert text.startswith("#compdef fastresnet") and "--train.epochs" in text and "cpu.yaml" in text
    if shutil.which("zsh"):
        assert subprocess.run(["zsh", "-n", script / "zsh"]).returncode == 0
