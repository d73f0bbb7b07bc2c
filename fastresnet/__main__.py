"""The command `fastresnet`: a name for each task, and the module whose `main(argv)` does it."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from fastresnet import __version__
from fastresnet.base import exits
from fastresnet.machine.distributed import check_alone

COMMANDS = {  # name: (module, what it does)
    "train": ("commands.train", "train a network as a recipe says"),
    "convert": ("commands.convert", "turn images into betons, or check a beton"),
    "evaluate": ("commands.evaluate", "all about a checkpoint's answers on a test set"),
    "predict": ("commands.predict", "classes and probabilities of image files"),
    "export": ("commands.export", "hand a network to other programs: ONNX, safetensors, torch.export"),
    "describe": ("commands.describe", "look at the data, or at a model's layers"),
    "find-lr": ("commands.find_lr", "find a learning rate by a range test"),
    "report": ("commands.report", "the page of a run, or of several side by side"),
    "bench": ("bench.commands.run", "measure this machine"),
    "compare": ("bench.commands.compare", "compare result files of machines or commits"),
    "reproduce": ("bench.commands.reproduce", "measure a speed record over many runs"),
    "search": ("bench.commands.search", "search for faster settings of a recipe"),
    "plan": ("bench.commands.plan", "what a run would take on another machine"),
    "leaderboard": ("bench.commands.leaderboard", "draw the tables of results and records anew"),
    "loaders": ("bench.commands.loaders", "measure the loaders against each other"),
}

SHARED = ("train", "reproduce", "search")  # by the processes that torchrun starts


def usage() -> str:
    """All commands, a line each."""
    lines = [f"{name:<13}{what}" for name, (_, what) in COMMANDS.items()]
    last = "fastresnet COMMAND --help tells its options and settings; --version the release."
    shells = "fastresnet --completion bash (or zsh) is a script for the shell."
    return "\n".join(["usage: fastresnet COMMAND ...", "", *lines, "", last, shells])


def run(name: str, argv: Sequence[str] | None = None) -> int:
    """The exit code of a command on these words, None: this process's own.

    Its module is imported here and not before, so that Ctrl-C meanwhile is no traceback.
    """
    return exits.exit_code(_call, name, argv)


def _completion(shell: str = "") -> None:
    from fastresnet.commands import completion

    print(completion.script(shell, COMMANDS))


def _call(name: str, argv: Sequence[str] | None) -> object:
    if name not in SHARED:
        check_alone()
    before, after = ("starting ...\r", "\x1b[K") if sys.stderr.isatty() else ("", "")
    print(before, end="", file=sys.stderr, flush=True)  # importing PyTorch takes seconds
    module = importlib.import_module(f"fastresnet.{COMMANDS[name][0]}")
    print(after, end="", file=sys.stderr, flush=True)
    return module.main(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """What `fastresnet WORDS` does; gives the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "--version"):
        print(__version__ if words == ["--version"] else usage())
        return exits.DONE
    name, *rest = words
    if name == "--completion":
        return exits.exit_code(_completion, *rest[:1])
    if name not in COMMANDS:
        close = difflib.get_close_matches(name.replace("_", "-"), COMMANDS, 1)
        hint = f"Did you mean {close[0]}?" if close else "fastresnet --help lists them all"
        print(f"error: there is no command {name!r}. {hint}", file=sys.stderr)
        return exits.USER_ERROR
    sys.argv = [f"fastresnet {name}", *rest]  # the first is what argparse calls the program
    return run(name)


if __name__ == "__main__":
    sys.exit(main())
