"""What has to happen for a collection to equal a folder: found out before anything is changed.

Only what is below the folder's own prefix is looked at. What cannot be read now is never deleted.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.client import NotFound
from penstock.storage.folders import SyncPlan, plan_for

from .folders import Walk, below
from .uploading import Sending, find_new

if TYPE_CHECKING:
    from penstock.client import Penstock


def plan_sync(
    client: "Penstock",
    collection: str,
    walk: Walk,
    *,
    begin: str,
    compared: bool,
    sending: Sending,
    on_progress: Callable[[], None],
) -> SyncPlan:
    """Compare the folder with what is in the collection below ``begin``. Changes nothing.

    Args:
        compared: by content; else what is known is sent too, for the server to compare what is said of it.

    Raises:
        ClientError: the server does not answer.
    """
    unread = list(walk.skipped)  # before any content was looked at
    here = _documents_below(client, collection, begin)
    if here is None:  # no collection yet
        return SyncPlan(add=walk.found)
    new = find_new(client, collection, walk.found, sending=sending, on_progress=on_progress, everything=not compared)
    return plan_for(walk, new=new, unread=unread, here=here, unchanged=sending.unchanged)


def _documents_below(client: "Penstock", collection: str, begin: str) -> dict[str, int] | None:
    """Return the versions of the documents below a prefix that are not leaving; None: there is no such collection."""
    try:
        listed = client.all_documents(collection, prefix=below(begin))
        return {document.source: document.version for document in listed if document.state != "deleting"}
    except NotFound as error:
        if error.code != "unknown_collection":
            raise
        return None
