"""Plants known faults, one at a time, in a copy of the tree and says which test notices: `make faults`.

A fault is a pattern that stands once in the package and what takes its place. The script says so where a
pattern no longer stands: then the code has changed, and the fault must be written anew. Exit code 1 where a
fault went unnoticed or could not be planted. Words on the command line pick faults by name.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import forked

LIMIT = 300.0  # seconds for the tests of one fault


@dataclass(frozen=True)
class Fault:
    """name: what is wrong with it; old: a regular expression, in which a space stands for any white space;
    new: what takes its place; tests: where it should be noticed."""

    name: str
    old: str
    new: str
    tests: tuple[str, ...]


def _in(file: str, name: str) -> tuple[str, ...]:
    return (f"tests/{file}.py", "-k", name)


RECORD, RUN = _in("test_promises", "record"), _in("test_promises", "test_a_run_is_judged")
IMAGES, WHITENING = _in("test_promises", "epoch or bright or resol"), _in("test_promises", "whiten")
SETTINGS_OF_AUGMENT = r"(= )(\{one\.name: getattr\(train, one\.name\) for one in fields\(Augment\)\})"
FAULTS = [
    Fault("Muon's momentum not decayed", r"torch\._foreach_mul_\(buffers, momentum\)", "pass",
          _in("test_plain", "muon")),
    Fault("a run's TTA figure made without TTA", r'(evaluate\( "test", )tta=cfg\.eval\.tta( \) if)',
          r'\1tta="none"\2', RUN),
    Fault("a record's TTA figure made without TTA",
          r"(experiment\.evaluate\( split, )tta=tta( \)\.accuracy)", r'\1tta="none"\2', RECORD),
    Fault("averaged weights never evaluated", r"model = self\.averaged_model or self\.model",
          "model = self.model", RECORD),
    Fault("the EMA's decay wrong", r"self\._move\(1\.0 - decay\)", "self._move((1.0 - decay) / 2)",
          _in("test_plain", "average")),
    Fault("whitening off the protocol's clock", r"( clock = timing\.Stopwatch\(experiment\.device\))"
          r"( experiment\.reset\(seed\) experiment\.initialise\(\))", r"\2\1", RECORD),
    Fault("the deciding evaluation off the clock", r'clock\.lap\("eval"\)( except trainer\.Diverged)',
          r'clock.seconds["eval"] = 0.0\1', RECORD),
    Fault("every run of a record with seed 0",
          r"(Stopwatch\(experiment\.device\) experiment\.reset\()seed\)", r"\g<1>0)", RECORD),
    Fault("resolutions by epoch instead of share of the run", r"until \* self\.total_steps",
          "until * self.steps_per_epoch", IMAGES),
    Fault("the training set never shuffled", r"shuffle=True(, drop_last=train\.drop_last)",
          r"shuffle=False\1", IMAGES),
    Fault("cutout never handed on", SETTINGS_OF_AUGMENT, r'\1\2 | {"cutout_px": 0}',
          _in("test_every_setting", "train.cutout_px")),
    Fault("brightness and contrast swapped", SETTINGS_OF_AUGMENT,
          r'\1\2 | {"brightness": getattr(train, "contrast"), "contrast": getattr(train, "brightness")}',
          IMAGES),
    Fault("label smoothing lost", r"label_smoothing=cfg\.train\.label_smoothing"
          r"(, loss_reduction=cfg\.train\.loss_reduction, clip_norm)", r"label_smoothing=0.0\1",
          _in("test_every_setting", "train.label_smoothing")),
    Fault("clip_norm lost", r"clip_norm=cfg\.train\.clip_norm", "clip_norm=0.0",
          _in("test_every_setting", "train.clip_norm")),
    Fault("whitening from unnormalised images",
          r"return (self\.plain\(self\.stored, torch\.arange\(count, device=self\.device\)\))",
          r"std, mean = (torch.tensor(x).view(3, 1, 1) for x in (self.asked.std, self.asked.mean))"
          r"; return \1 * std + mean", WHITENING),
    Fault("the whitening bias frozen for good", r"return bool\(self\.names\) and step >= self\.from_step",
          "return bool(self.names)", WHITENING),
    Fault("the statistics of frozen norms move", r"norm\.train\(not held\)", "norm.train()",
          _in("test_freezing", "stay_until_their_step")),
    Fault("lookahead's share lost", r"self\._move\(self\._share\(step\)\)", "self._move(1.0)",
          _in("test_plain", "lookahead")),
    Fault("run.deterministic ignored", r"precision\.repeat_exactly\(cfg\.run\.deterministic\)", "pass",
          _in("test_every_setting", "run.deterministic")),
]  # fmt: skip


def main(words: list[str]) -> int:
    """Plant each fault; a line for each, then a sum."""
    chosen = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    missed = 0
    forked.import_what_is_slow()
    with forked.copied_tree() as tree:
        for fault in chosen:
            said = planted(tree, fault)
            missed += not said.startswith("noticed")
            print(f"{fault.name:<50} {said}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} faults noticed")
    return 1 if missed else 0


def planted(tree: Path, fault: Fault) -> str:
    """What becomes of the tests with this fault in the tree, which is put right again."""
    pattern = re.compile(fault.old.replace(" ", r"\s*"))
    texts = {path: path.read_text("utf-8") for path in (tree / "fastresnet").rglob("*.py")}
    found = [path for path, text in texts.items() for _ in pattern.finditer(text)]
    if len(found) != 1:
        return f"NOT PLANTED: its pattern stands {len(found)} times in the package, must be once"
    (path,) = found
    path.write_text(pattern.sub(fault.new, texts[path]), "utf-8")
    outcome = forked.run(tree, fault.tests, LIMIT)
    path.write_text(texts[path], "utf-8")
    if outcome.what == "failed":
        return f"noticed by {outcome.first}"
    return "UNNOTICED" if outcome.what == "passed" else f"NO ANSWER: {outcome.what} {outcome.first}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
