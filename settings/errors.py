"""What can be wrong with the settings. The message is for the operator: which key, from where, what to write instead.

SettingsError
├── InvalidSettings     a key is unknown or a value is not allowed: edit the file, variable or flag it names
└── MissingComponent    a setting asks for something that is not installed or not reachable on this machine
"""

from collections.abc import Sequence


class SettingsError(Exception):
    """The settings cannot be used."""


class InvalidSettings(SettingsError):
    """Raised with every problem found, one per line, so that one run is enough to correct them all."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class MissingComponent(SettingsError):
    """Raised when a setting needs a package, a program or a server that is not there."""
