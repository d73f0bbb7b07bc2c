"""The parts of the suite: a case is added by a file here, or a function in one, and a line in MODULES.

Refuses to share out time, to write files and to judge.
"""

import importlib
from collections.abc import Callable
from typing import cast

from fastresnet.bench.measuring.context import Context
from fastresnet.bench.measuring.harness import Case

Cases = Callable[[Context], list[Case]]
# The modules of this folder by the part they are, in the order in which they run.
MODULES = {
    "ceilings": "ceilings",  # what the device can do
    "loader": "loading",  # batches a second
    "step": "step",  # a training step
    "endtoend": "endtoend",  # epochs, and the costs around them
    "accuracy": "accuracy",  # time to accuracy
    "scaling": "scaling",  # steps over several processes, in the full suite
}
PARTS = {
    part: cast(Cases, importlib.import_module(f"{__name__}.{module}").cases)
    for part, module in MODULES.items()
}
