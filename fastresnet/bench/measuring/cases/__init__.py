"""The parts of the suite: a case is added by a file here, or a function in one, and a line in PARTS.

Refuses to share out time, to write files and to judge.
"""

from collections.abc import Callable

from fastresnet.bench.measuring.cases import accuracy, ceilings, endtoend, loading, step
from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.harness import Case

# in the order in which they run
PARTS: dict[str, Callable[[Context], list[Case]]] = {
    "ceilings": ceilings.cases,
    "loader": loading.cases,
    "step": step.cases,
    "endtoend": endtoend.cases,
    "accuracy": accuracy.cases,
}
