"""What schedules can do, and what each has to be told. Whether a folder is there, its run finds out.

Folders are those of the machines that run maintenance. Which of them schedules may name is the operator's to say.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidSchedule

MAX_PATH_CHARACTERS = 1_024


@dataclass(frozen=True)
class Action:
    """``needed`` and ``allowed``: its options. ``of_everything``: also without a collection, for all there are."""

    needed: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    of_everything: bool = False


ACTIONS: Mapping[str, Action] = {
    "reembed": Action(
        allowed=(
            *("model", "dimensions", "chunking", "quantization", "economy", "keep_s"),
            *("afresh", "force", "no_switch", "budget_usd"),
        )
    ),
    "sync": Action(needed=("folder",), allowed=("prefix", "delete_much")),
    "expire": Action(of_everything=True),
    "merge": Action(of_everything=True),
    "backup": Action(needed=("destination",), allowed=("keep",), of_everything=True),
}
PLACES = {"folder": "schedules.sync_roots", "destination": "schedules.backup_roots"}  # by option: the setting


def checked_options(
    action: str, options: Mapping[str, Any], *, of_everything: bool, roots: Mapping[str, Sequence[Path]]
) -> dict[str, Any]:
    """Return the options of an action, those that say nothing left out.

    Args:
        roots: by setting, the folders below which a path may lie.

    Raises:
        InvalidSchedule: names the option in ``param``.
    """
    known = ACTIONS.get(action)
    if known is None:
        raise InvalidSchedule(f"no schedule can {action[:32]!r}: choose one of {', '.join(ACTIONS)}", param="action")
    if of_everything and not known.of_everything:
        raise InvalidSchedule(f"{action} is of one collection: make the schedule there", param="action")
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    for name in known.needed:
        if name not in given:
            raise InvalidSchedule(f"{action} needs options.{name}", param=f"options.{name}")
    for name, value in given.items():
        if name not in (*known.needed, *known.allowed):
            raise InvalidSchedule(f"{action} has no option {name!r}", param=f"options.{name}")
        if isinstance(value, str) and "\0" in value:
            raise InvalidSchedule(f"options.{name} has a NUL character", param=f"options.{name}")
    for name, setting in PLACES.items():
        if name in given:
            check_place(given[name], roots=roots[setting], setting=setting, param=f"options.{name}")
    return given


def check_place(path: str, *, roots: Sequence[Path], setting: str, param: str) -> None:
    """Return when a path lies below one of the folders that schedules may name, going by its words alone.

    Raises:
        InvalidSchedule: it does not, or there are none. The folders are not told: they are the operator's to know.
    """
    plain = "\0" not in path and len(path) <= MAX_PATH_CHARACTERS and path == os.path.normpath(path)
    if not plain or not path.startswith("/") or path.startswith("//"):
        raise InvalidSchedule(
            f"the path {path[:200]!r} is not allowed: write it from the root, without '.' and '..', such as /srv/notes",
            param=param,
        )
    if not any(Path(path).is_relative_to(root) for root in roots):
        told = "none is" if not roots else "it does not lie below one of those that are"
        raise InvalidSchedule(
            f"schedules may not use the folder {path[:200]!r}: {told} allowed by {setting}", param=param
        )


def leads_out(path: Path, roots: Sequence[Path]) -> bool:
    """Say whether a path, its links followed, is outside of all these folders, their own links followed."""
    real = Path(os.path.realpath(path))
    return not any(real.is_relative_to(os.path.realpath(root)) for root in roots)
