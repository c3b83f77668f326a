"""Packages and files that a local model is made of, and what to say when they are missing or not the right ones."""

import hashlib
from importlib import import_module
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from ..errors import ProviderMisconfigured


def imported(name: str, *, model: str, extra: str | None = None) -> Any:
    """Return a module. Raises ProviderMisconfigured when it is not installed: ``extra`` has it, else ``model``."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ProviderMisconfigured(
            f"The model {model} needs the package {name.partition('.')[0]}, which cannot be imported ({error}):"
            f" pip install 'penstock[{extra or model}]'",
            setting="embedding.model",
        ) from error


def checked(path: Path | Traversable, sha256: str, *, model: str) -> bytes:
    """Return the bytes of a file. Raises ProviderMisconfigured when it is missing or not the pinned one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ProviderMisconfigured(
            f"The model {model} cannot read {path.name} ({error.strerror}): install penstock[{model}] again",
            setting="embedding.model",
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ProviderMisconfigured(
            f"The model {model} refuses {path.name}: its sha256 is not the pinned one, so its vectors would not fit"
            f" those already stored; install penstock[{model}] in the locked versions",
            setting="embedding.model",
        )
    return data
