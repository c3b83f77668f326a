"""The ledger owns the state of every document and batch; the queue only carries hints about it.

Each function is one transaction (those that take a connection are part of the caller's) and is harmless when run
twice: the second time it changes nothing and says so. Within a transaction rows are taken in one order, jobs,
batches, versions, so that none wait for each other in a ring.
"""

from .admission import ReadyBatch, take_ready
from .aside import gather, put_aside, trip_of
from .caps import Caps
from .claims import Claim, Held, MustBeAlone, claim, give_turn_back, renew
from .contents import NEVER, FailedDocument, Tried, VersionRow
from .dead_bytes import release_dead_bytes
from .expiry import ExpiredDocument, claim_expiry, finish_expiry, open_expiries, read_expired
from .forming import Forming, find_waiting, form_waiting
from .indexing import IndexGroup, claim_index, finish_indexing
from .members import read_members
from .merges import being_merged, check_not_merged, claim_swap, drop_merge, finish_merge, finish_swap, open_merge
from .moving import bring_over, bring_stragglers_over, forget_counts
from .orders import (
    are_others_open,
    claim_order,
    detach,
    end_order,
    forget_orders,
    look_later,
    record_file,
    record_placed,
    renew_order,
    split_order,
)
from .passing import others_wait
from .pauses import Pauses, goes_on, pause, read_pauses, resume
from .pruning import Pruned, PruningProgress, prune
from .quarantine import UNTIL_RAISED_S, Postponed, retry_later, set_apart
from .reconciliation import Reconciled, reconcile
from .rollbacks import (
    RollbackInfo,
    claim_rollback,
    fail_rollback,
    finish_rollback,
    get_rollback,
    open_rollback,
    refuse_rollback,
)
from .setbacks import Setback, read_setbacks
from .stages import EmbedPart, fail_versions, finish_chunking, finish_embedding

__all__ = [
    "NEVER",
    "UNTIL_RAISED_S",
    "Caps",
    "Claim",
    "EmbedPart",
    "ExpiredDocument",
    "FailedDocument",
    "Forming",
    "Held",
    "IndexGroup",
    "MustBeAlone",
    "Pauses",
    "Postponed",
    "Pruned",
    "PruningProgress",
    "ReadyBatch",
    "Reconciled",
    "RollbackInfo",
    "Setback",
    "Tried",
    "VersionRow",
    "are_others_open",
    "being_merged",
    "bring_over",
    "bring_stragglers_over",
    "check_not_merged",
    "claim",
    "claim_expiry",
    "claim_index",
    "claim_order",
    "claim_rollback",
    "claim_swap",
    "detach",
    "drop_merge",
    "end_order",
    "fail_rollback",
    "fail_versions",
    "find_waiting",
    "finish_chunking",
    "finish_embedding",
    "finish_expiry",
    "finish_indexing",
    "finish_merge",
    "finish_rollback",
    "finish_swap",
    "forget_counts",
    "forget_orders",
    "form_waiting",
    "gather",
    "get_rollback",
    "give_turn_back",
    "goes_on",
    "look_later",
    "open_expiries",
    "open_merge",
    "open_rollback",
    "others_wait",
    "pause",
    "prune",
    "put_aside",
    "read_expired",
    "read_members",
    "read_pauses",
    "read_setbacks",
    "reconcile",
    "record_file",
    "record_placed",
    "refuse_rollback",
    "release_dead_bytes",
    "renew",
    "renew_order",
    "resume",
    "retry_later",
    "set_apart",
    "split_order",
    "take_ready",
    "trip_of",
]
