"""What the bodies of an endpoint's answers hold, and what its errors say. Asks nobody."""

import base64
import binascii
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ProviderUnavailable
from .embedder import Vectors

if TYPE_CHECKING:
    from openai import APIStatusError

MOST_TOKENS = 10**9  # that one answer can have been asked for: more is no count


def never_arrived(error: Exception) -> bool:
    """Say whether nobody can have been asked, let alone paid: there was no connection."""
    # By name: which library of HTTP the client brings, and so whose class it is, differs between its releases.
    return type(error.__cause__).__name__ in {"ConnectError", "ConnectTimeout"}


def told_tokens(answer: dict[str, Any]) -> int | None:
    """Return the tokens that the endpoint says it counted; None when it says nothing of use."""
    usage = answer.get("usage")
    told = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return told if isinstance(told, int) and 0 < told <= MOST_TOKENS else None


def decoded(embedding: str | list[float]) -> Vectors:
    """Return one vector. An endpoint that does not know base64 answers with numbers."""
    if not isinstance(embedding, str):
        return np.array(embedding, np.float32)
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    except (binascii.Error, ValueError) as error:
        raise ProviderUnavailable("The endpoint answered a vector that is not base64.") from error


def message_of(error: "APIStatusError") -> str:
    """Return what the endpoint says of an error, on one line."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(said or error.response.text or error.message).split())[:300]
