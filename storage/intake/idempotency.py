"""Submissions by the key that their producer gave them: the same one again is told what the first one was told.

A key is recorded in the transaction that accepts its submission, so that both are there or neither. It says nothing
about later versions: what the first submission brought may have been replaced or deleted since, and stays so.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.engine import Catalog
from ..catalog.statements import insert_if_absent
from ..catalog.tables import idempotency_keys
from ..errors import KeyReused
from ..ids import CollectionId, JobId, TenantId
from .acceptance import Target
from .submissions import Candidate

KEEP_S = 86_400.0
_AT_ONCE = 500  # rows in one transaction, in which nobody else writes on SQLite


@dataclass(frozen=True)
class SubmissionKey:
    """A producer's name for one submission, and the blake2b-256 of what was submitted under it."""

    tenant: TenantId
    key: str
    digest: bytes


def submission_key(
    key: str,
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    job_id: JobId | None,
    candidates: Sequence[Candidate],
    webhook_url: str | None = None,
) -> SubmissionKey:
    """Return the key of a submission. What it says decides, not how: a form and JSON may say the same."""
    said = [[one.source, one.submitted.filename, one.content_hash.hex(), one.metadata_hash.hex()] for one in candidates]
    whole = json.dumps([collection_id, job_id, said, webhook_url], separators=(",", ":"))
    return SubmissionKey(tenant, key, hashlib.blake2b(whole.encode(), digest_size=32).digest())


def read_answer(connection: Connection, key: SubmissionKey) -> Mapping[str, Any] | None:
    """Return what the submission of this key was told, None when there was none yet.

    Raises:
        KeyReused: it was another one.
    """
    mine = (idempotency_keys.c.tenant_id == key.tenant, idempotency_keys.c.key == key.key)
    row = connection.execute(sa.select(idempotency_keys.c.digest, idempotency_keys.c.answer).where(*mine)).first()
    if row is None:
        return None
    if row.digest != key.digest:
        raise KeyReused(
            "this idempotency key came with another submission before (other documents, collection, job or webhook): "
            "a new submission needs a new key"
        )
    answer: Mapping[str, Any] = row.answer
    return answer


def take_key(connection: Connection, target: Target, key: SubmissionKey) -> bool:
    """Take the key for this transaction; False: a submission has it. Waits for one that is just being committed."""
    row = {"tenant_id": key.tenant, "key": key.key, "collection_id": target.collection_id, "digest": key.digest}
    return insert_if_absent(connection, idempotency_keys, {**row, "answer": {}, "created_at": target.now})


def record_answer(connection: Connection, key: SubmissionKey, answer: Mapping[str, Any]) -> None:
    """Keep what the submission is told, which has taken its key."""
    mine = (idempotency_keys.c.tenant_id == key.tenant, idempotency_keys.c.key == key.key)
    connection.execute(sa.update(idempotency_keys).where(*mine).values(answer=dict(answer)))


def forget_keys(catalog: Catalog, *, now: float, keep_s: float = KEEP_S) -> int:
    """Delete the keys that were taken longer than ``keep_s`` ago; returns how many. They may be taken again then."""
    old = sa.select(idempotency_keys.c.tenant_id, idempotency_keys.c.key)
    old = old.where(idempotency_keys.c.created_at < now - keep_s).limit(_AT_ONCE)
    forgotten = 0
    while True:
        with catalog.read() as connection:
            found = [tuple(row) for row in connection.execute(old)]
        if not found:
            return forgotten
        name = sa.tuple_(idempotency_keys.c.tenant_id, idempotency_keys.c.key)
        with catalog.write("forget_keys") as connection:
            gone = sa.delete(idempotency_keys).where(name.in_(found), idempotency_keys.c.created_at < now - keep_s)
            forgotten += connection.execute(gone).rowcount
