"""What a run is told: settings declared, recipes read strictly, the command line, what can't go together.

Refuses to know devices and data: settings load without torch.
"""

from fastresnet.settings.config import Config, load
from fastresnet.settings.keys import ConfigError
from fastresnet.settings.reading import recipes

__all__ = ["Config", "ConfigError", "load", "recipes"]
