"""Calls to a remote object store: tried again a bounded number of times, their failures told in our words.

It knows no object's meaning. No message repeats what the library says beyond the server's own code: it is long, and
what an endpoint answers must not end up in a tenant's error.
"""

import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from ..errors import NotFound, StorageError, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
NO_SUCH_RANGE = 416


@dataclass(frozen=True)
class RemoteCalls:
    """Makes calls on one ``address``. Delays are random between zero and a doubled bound (full jitter)."""

    address: str  # as shown to people: without credentials
    attempts: int = 6
    patience_s: float = 60.0  # no attempt begins later than this after the first
    first_delay_s: float = 0.1
    longest_delay_s: float = 5.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def call(self, name: str, function: Callable[[], T], *, expected: tuple[type[BaseError], ...] = ()) -> T:
        """Return what ``function`` returns. It must be harmless when run again, also after it succeeded unseen.

        ``expected``: errors of the library that only the caller can understand; they are passed on.

        Raises:
            NotFound: there is no object ``name``.
            Unavailable: the store did not answer, refused the credentials, or has no such bucket.
        """
        give_up_at = time.monotonic() + self.patience_s
        for attempt in range(1, self.attempts + 1):
            try:
                return function()
            except expected:
                raise
            except FileNotFoundError as error:
                raise self._absent(name, error) from error
            except BaseError as error:
                if not may_pass(error) or attempt == self.attempts or time.monotonic() >= give_up_at:
                    raise self._failed(error) from error
                log.debug("Attempt %d on %s at %s failed: %s", attempt, name, self.address, reason_of(error))
            self.wait(attempt)
        raise AssertionError("the last attempt returns or raises")

    def wait(self, attempt: int) -> None:
        """Wait after failed attempt number ``attempt``, from 1."""
        longest = min(self.longest_delay_s, self.first_delay_s * 2**attempt)
        self.sleep(random.uniform(0.0, longest))  # noqa: S311 spreads load, guards nothing

    def _absent(self, name: str, error: Exception) -> StorageError:
        if "NoSuchBucket" in str(error):
            return self._told("its bucket does not exist: make it, or correct objects.url")
        return NotFound(f"there is no object {name}")

    def _failed(self, error: BaseError) -> Unavailable:
        reason = reason_of(error)
        if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status_of(error) in {401, 403}:
            return self._told(
                f"it refuses the credentials ({reason}): check objects.access_key_id and objects.secret_access_key, "
                "and what they may do"
            )
        if "NoSuchBucket" in str(error):
            return self._told("its bucket does not exist: make it, or correct objects.url")
        return self._told(
            f"it did not answer as an S3 service ({reason}). Try again; if it stays so, check objects.url, "
            "objects.endpoint and objects.region"
        )

    def _told(self, problem: str) -> Unavailable:
        """Tell the operator where; a tenant, whom the error may reach, has no business with the address."""
        log.warning("The object store %s: %s", self.address, problem, extra={"action": "objects_unavailable"})
        return Unavailable(f"the object store is not available: {problem}")


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that a failed call was answered with; None when there was no answer."""
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def may_pass(error: BaseError) -> bool:
    """Return whether the same call may succeed a moment later: the server is busy, or nothing whole came back."""
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return False
    status = status_of(error)
    return status is None or status in _TRY_AGAIN


def reason_of(error: BaseException) -> str:
    """Return the server's code and status, or what went wrong on the way, in a few words."""
    status, code = status_of(error), _CODE.search(str(error))
    if status is not None:
        return f"{status} {code[1]}" if code else f"status {status}"
    first = str(error).partition("\n")[0]
    return first.rpartition(" - ")[2][:200]
