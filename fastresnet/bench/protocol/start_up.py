"""Seconds from a command to its first run's clock, in fresh processes: with cold caches, then with warm ones.

Refuses to time runs, and to fail a record for what only stands beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fastresnet.base import exits, files, strict_yaml
from fastresnet.bench.protocol import rival
from fastresnet.machine import software, timing
from fastresnet.settings.config import Config
from fastresnet.settings.keys import DEFAULT

# of this package, wherever it is called
COMMAND = """
import sys
sys.path[0] = sys.argv.pop(1)
from fastresnet.__main__ import run
sys.exit(run("reproduce"))
"""
MEASURED, ONLY, SKIPPED = "measured", "only", "skipped"  # values of --start-up


def cold_and_warm(cfg: Config) -> dict[str, float | str | None]:
    """Seconds of two processes, one after the other: folders for betons and kernels are empty for the first.

    Where one fails it has none, and "message" says why.
    """
    found: dict[str, float | str | None] = {"cold": None, "warm": None}
    if timing.process_age() is None:
        return {**found, "message": "the operating system doesn't tell when a process began"}
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            recipe, caches = Path(folder, "recipe.yaml"), software.caches_in(folder)
            files.write_text(recipe, _told(cfg.replace({"data.betons": f"{folder}/betons"}, "a cold start")))
            for state in list(found):
                found[state] = _seconds(recipe, caches)
    except (OSError, RuntimeError) as error:
        found["message"] = str(error)
    return found


def _told(cfg: Config) -> str:
    """What somebody has set, as a recipe: a default stays one."""
    said = {key: value for key, value in cfg.flat().items() if cfg.provenance[key] != DEFAULT}
    sections: dict[str, dict[str, object]] = {}
    for key, value in said.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    return strict_yaml.write({"recipe": cfg.recipe, **sections})


def _seconds(recipe: Path, caches: dict[str, str]) -> float:
    """From the start of a process with these caches to its first run's clock. RuntimeError where it fails."""
    words = [f"--config={recipe}", f"--start-up={ONLY}", "--allow-dirty"]
    command = [sys.executable, "-c", COMMAND, str(exits.PACKAGE.parent), *words]
    alone = {name: value for name, value in os.environ.items() if name != "WORLD_SIZE"}  # of torchrun
    done = subprocess.run(command, capture_output=True, text=True, env=alone | caches, check=False)
    if failure := rival.failure(done):
        raise RuntimeError(failure)
    return float(sum(rival.last_json(done.stdout).values()))
