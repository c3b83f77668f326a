"""What one catalog has compiled serves the others of its kind: tests open thousands, which compile the same anew."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.util import LRUCache

_KEPT = 5_000


class _Compiled(LRUCache[Any, Any]):
    """SQLAlchemy's cache of compiled statements, for every engine whose dialect is of the same class."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_of_kind(key), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_of_kind(key), value)


def _of_kind(key: Any) -> Any:
    dialect, *rest = key
    return (type(dialect), *rest)


def share_compiled_statements() -> None:
    """Give every engine that is made from here on the same cache."""
    compiled, create = _Compiled(_KEPT), sa.create_engine

    def create_sharing(*address: Any, **options: Any) -> sa.Engine:
        engine = create(*address, **options)
        engine._compiled_cache = compiled
        return engine

    sa.create_engine = create_sharing
