"""What applications import: a Python client of the HTTP interface and its wire types. Depends on nothing else here."""

from .errors import (
    Busy,
    ClientError,
    Conflict,
    Invalid,
    NotFound,
    OverBudget,
    ServerError,
    TooLarge,
    Unauthorized,
    Unreachable,
)
from .penstock import Penstock
from .uploads import Upload
from .webhooks import verify_webhook
from .wire import Chunking, Document, Job, NewDocument, SearchResult, Status, content_hash

__all__ = [
    "Busy",
    "Chunking",
    "ClientError",
    "Conflict",
    "Document",
    "Invalid",
    "Job",
    "NewDocument",
    "NotFound",
    "OverBudget",
    "Penstock",
    "SearchResult",
    "ServerError",
    "Status",
    "TooLarge",
    "Unauthorized",
    "Unreachable",
    "Upload",
    "content_hash",
    "verify_webhook",
]
