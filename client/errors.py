"""What can go wrong when talking to a Penstock server. A new class only where the caller acts differently.

ClientError
├── Unreachable    no answer: start the server, correct the address, or try again
├── Unauthorized   the key is missing or wrong
├── NotFound       the tenant, collection, document or job does not exist
├── Invalid        the request is wrong: ``param`` names the field to change
├── Conflict       the state does not allow it: look again
├── OverBudget     the tenant has no money left this month: raise its budget
├── TooLarge       the request is above a limit of the server: send less at once
├── Busy           try again after ``retry_after_s``
└── ServerError    the server failed: its log says why
"""


class ClientError(Exception):
    """A request failed. The text says what happened, to which object, and what to do next.

    Attributes:
        code: the server's word for what happened, stable across releases, for example ``unknown_collection``.
        status: the HTTP status; None when no answer came.
        param: the field of the request that is wrong, for example ``documents[3].source``.
    """

    def __init__(
        self, message: str, *, code: str | None = None, status: int | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.param = param


class Unreachable(ClientError):
    """Raised when the server gave no complete answer."""


class Unauthorized(ClientError):
    """Raised when the key is missing or not this installation's."""


class NotFound(ClientError):
    """Raised when the tenant, collection, document or job does not exist."""


class Invalid(ClientError):
    """Raised when the request is wrong and would be refused again."""


class Conflict(ClientError):
    """Raised when the state does not allow the operation."""


class OverBudget(ClientError):
    """Raised when it would cost more than the tenant's budget of this month has left. Nothing was spent."""


class TooLarge(ClientError):
    """Raised when the request is above a limit of the server."""


class Busy(ClientError):
    """Raised when the server cannot do it now. ``retry_after_s`` says when to ask again."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        param: str | None = None,
        retry_after_s: float = 1.0,
    ) -> None:
        super().__init__(message, code=code, status=status, param=param)
        self.retry_after_s = retry_after_s


class ServerError(ClientError):
    """Raised when the server failed, or answered what no Penstock server answers."""
