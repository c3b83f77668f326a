"""Files that hold one secret each, readable by their owner alone. Must not log or print what they hold."""

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

from .model import Settings


def admin_key_file(settings: Settings) -> Path:
    """Return where `penstock up` keeps the admin key for the command line of the same user."""
    return settings.data_dir / "admin.key"


def local_key(settings: Settings) -> str | None:
    """Return the admin key as this machine knows it: from the settings, else the one that is kept, if there is one."""
    if settings.admin_key is not None:
        return settings.admin_key.get_secret_value()
    return read_secret(admin_key_file(settings))


def read_secret(path: Path) -> str | None:
    """Return the secret kept in ``path``, or None when there is none that this user may read."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return None


def keep_secret(path: Path, secret: str) -> None:
    """Keep ``secret`` in ``path``, in place of the one before."""
    _written_beside(path, secret).replace(path)


def kept_secret(path: Path, *, new: Callable[[], str]) -> str:
    """Return the secret kept in ``path``; when there is none, keep ``new()`` there first. Safe between processes."""
    kept = read_secret(path)
    if kept is not None:
        return kept
    written = _written_beside(path, new())
    try:
        os.link(written, path)  # fails when another process was first; then its secret counts
    except FileExistsError:
        pass
    finally:
        written.unlink()
    return path.read_text(encoding="utf-8").strip()


def flower_password(settings: Settings) -> str:
    """Return Flower's password: the setting, else the one kept in ``<data_dir>/flower.password``, made when missing."""
    if settings.flower.password is not None:
        return settings.flower.password.get_secret_value()
    return kept_secret(settings.data_dir / "flower.password", new=lambda: secrets.token_urlsafe(18))


def _written_beside(path: Path, secret: str) -> Path:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mkstemp makes it 0600
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(secret + "\n")
    return Path(name)
