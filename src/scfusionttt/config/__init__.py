"""Settings: `settings` defines them, `presets` names sets, `parse` reads user input, `rules` refuses unused ones.

A setting is addressed as ``section.key``, on the command line (``--set network.width=128``), in a TOML file and in
Python (``FusionTTT(network={"width": 128})``).
"""

from scfusionttt.config.parse import read_toml
from scfusionttt.config.presets import PRESETS, preset
from scfusionttt.config.settings import (
    Config,
    DataConfig,
    FinetuneConfig,
    NetworkConfig,
    PretrainConfig,
    Sizes,
    StageConfig,
)

__all__ = [
    "PRESETS",
    "Config",
    "DataConfig",
    "FinetuneConfig",
    "NetworkConfig",
    "PretrainConfig",
    "Sizes",
    "StageConfig",
    "preset",
    "read_toml",
]
