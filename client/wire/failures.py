"""The one shape of every error."""

from .messages import Answer


class ErrorBody(Answer):
    code: str
    message: str
    param: str | None = None


class ErrorAnswer(Answer):
    """Every error has this shape, whatever its status."""

    error: ErrorBody
