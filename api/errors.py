"""What the interfaces answer instead of a result: one class, because every caller does the same with it.

    ApiError
    └── Refused    a status, a stable code, a sentence for people, and the field to change

`refusal` translates the errors of the folders below; whatever it does not know is a defect and stays unexplained.
"""

import math
from errno import EDQUOT, ENOSPC
from http import HTTPStatus

from penstock.pipeline.errors import (
    EmbeddingError,
    InputRejected,
    InvalidChunking,
    InvalidFilter,
    InvalidQuery,
    NoOrders,
    ProviderMisconfigured,
    ProviderUnavailable,
)
from penstock.storage.errors import (
    AlreadyExists,
    BacklogFull,
    Conflict,
    Damaged,
    FilterMismatch,
    InvalidMetadata,
    InvalidName,
    InvalidSchedule,
    KeyReused,
    LimitReached,
    NotFound,
    NotKept,
    NotYet,
    OverBudget,
    TooMuchAtOnce,
    Unavailable,
    Unsupported,
)


class ApiError(Exception):
    """An interface cannot do what it was asked."""


class Refused(ApiError):
    """Raised with everything the answer needs.

    ``param`` is the field that is wrong, for example ``documents[3].source``; ``retry_after_s`` is set when asking
    again may help.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "invalid_request",
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = HTTPStatus(status)
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))


# The first class an error is an instance of decides; subclasses come before what they derive from.
FULL_S = 10.0  # until a full disk is worth another attempt

TRANSLATIONS: tuple[tuple[type[Exception], int, str, str | None], ...] = (
    (InvalidMetadata, 400, "invalid_metadata", "metadata"),
    (InvalidSchedule, 400, "invalid_schedule", None),
    (InvalidName, 400, "invalid_name", None),
    (FilterMismatch, 400, "invalid_filter", "filter"),
    (NotKept, 404, "version_not_kept", "snapshot"),
    (NotFound, 404, "not_found", None),
    (AlreadyExists, 409, "already_exists", None),
    (LimitReached, 409, "limit_reached", None),
    (KeyReused, 422, "idempotency_key_reused", None),
    (Conflict, 409, "conflict", None),
    (TooMuchAtOnce, 413, "backlog_limit", None),
    (BacklogFull, 429, "backlog_full", None),
    (OverBudget, 402, "over_budget", None),
    (Damaged, 500, "damaged", None),
    (Unsupported, 500, "unsupported", None),
    (NotYet, 504, "not_yet", "min_token"),
    (Unavailable, 503, "unavailable", None),
    (InvalidChunking, 400, "invalid_chunking", "chunking"),
    (InvalidFilter, 400, "invalid_filter", "filter"),
    (InvalidQuery, 400, "invalid_query", None),
    (NoOrders, 400, "no_economy", "priority"),
    (InputRejected, 400, "query_rejected", "query"),
    (ProviderUnavailable, 503, "embedding_unavailable", None),
    (ProviderMisconfigured, 500, "embedding_misconfigured", None),
    (EmbeddingError, 500, "embedding_failed", None),
)


def refusal(error: Exception, *, param: str | None = None) -> Refused | None:
    """Return what to answer for an error of storage/ or pipeline/; None when it is a defect of this program.

    ``param`` overrides the field that is named.
    """
    if isinstance(error, Refused):
        return error
    for kind, status, code, usual_param in TRANSLATIONS:
        if isinstance(error, kind):
            field = param or getattr(error, "param", None) or usual_param
            return Refused(str(error), status=status, code=code, param=field, retry_after_s=_retry_after_s(error))
    if isinstance(error, OSError) and error.errno in {ENOSPC, EDQUOT}:
        told = "the server's disk is full, and nothing was changed: whoever runs it has to make room; try again then"
        return Refused(told, status=503, code="disk_full", retry_after_s=FULL_S)
    return None


def _retry_after_s(error: Exception) -> float | None:
    if isinstance(error, BacklogFull):
        return error.retry_after_s
    if isinstance(error, ProviderUnavailable):
        return error.retry_after_s or 1.0
    return 1.0 if isinstance(error, Unavailable) else None
