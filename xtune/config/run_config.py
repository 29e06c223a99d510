"""The config of a command: read once, then checked, wired and written."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .flatten import flatten_config
from .load import check_type_arguments, load
from .wire import Job, wire


@dataclass(frozen=True)
class RunConfig:
    """A config file with the options of a command.

    Attributes:
        path: The file or the composed preset.
        cfg: Its values, with the options applied.
        options: Dotted option names and their values.
    """

    path: Path
    cfg: Config
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, options: dict[str, Any] | None = None) -> 'RunConfig':
        """Read the config at `path` and apply `options`; torch is not imported.

        Raises:
            ConfigError: The file cannot be read, or sections, keys, types or limits are wrong.
        """
        return cls(path, load(path, options), options or {})

    def wire(self) -> Job:
        """Return the job of the config. Its sections are checked against the signature of their `type` first.

        Raises:
            ConfigError: Arguments do not fit, or a `type` cannot be imported.
        """
        check_type_arguments(self.cfg, self.path, self.options)
        return wire(self.cfg, self.path.stem)

    def text(self) -> str:
        """Return the config as one file that loads to the same values, all options written out."""
        return flatten_config(self.cfg, self.path)
