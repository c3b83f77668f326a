"""What a segment keeps of the documents that its rows belong to: JSON lines in one byte array.

It knows no rows and does no I/O.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, overload

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from ..errors import Damaged
from .ragged import join_arrays, join_offsets, pack_items

_REMEMBERED_MAX = 16_384  # decoded records; a search process keeps segments open for days
_ID_OPENS, _ID_MAX = b'{"document_id":"', 512  # the first key of a line, whose keys are sorted; ids have no quote


class Original(TypedDict):
    """What was submitted, so that the catalog's row of a document can be made again from a segment alone.

    Its bytes are ``size_bytes`` from ``pack_offset`` of object ``pack``. Hashes are hex blake2b-256, as in the ledger.
    """

    filename: str
    media_type: str | None  # as its producer declared it
    pack: str
    pack_offset: int
    size_bytes: int
    content_hash: str
    metadata_hash: str


@dataclass(frozen=True)
class DocumentRecord:
    """What a segment keeps of one document version. Times are seconds since 1970, UTC.

    ``text_version_id`` is the version that brought the text, where a later one only described it anew.
    """

    document_id: str
    version_id: str
    number: int
    source: str
    title: str | None
    metadata: dict[str, Any]
    event_time: float | None
    expires_at: float | None
    ingested_at: float
    media_type: str
    original: Original | None = None
    text_version_id: str | None = None

    @property
    def text_version(self) -> str:
        """The version that brought the text. With the ordinal it names a chunk, whichever id that has."""
        return self.text_version_id or self.version_id


class Documents(Sequence[DocumentRecord]):
    """Records as JSON lines in one byte array, decoded when asked for and remembered for a while."""

    def __init__(
        self,
        data: NDArray[np.uint8],
        offsets: NDArray[np.uint64],
        *,
        decoded: Mapping[int, DocumentRecord] | None = None,
    ) -> None:
        self.data = data
        self.offsets = offsets
        self._decoded = dict(decoded or {})

    @classmethod
    def of(cls, records: Iterable[DocumentRecord]) -> "Documents":
        if isinstance(records, cls):
            return records
        several = list(records)
        return cls(*pack_items([_line(record) for record in several]), decoded=dict(enumerate(several)))

    @classmethod
    def of_lines(cls, lines: Sequence[bytes]) -> "Documents":
        return cls(*pack_items(lines))

    def line(self, index: int) -> bytes:
        """Return the JSON line of one record, without decoding it. Equal records have equal lines."""
        return self.data[int(self.offsets[index]) : int(self.offsets[index + 1])].tobytes()

    @classmethod
    def stack(cls, several: Sequence["Documents"]) -> "Documents":
        data = join_arrays([documents.data for documents in several], dtype="|u1")
        return cls(data, join_offsets([documents.offsets for documents in several]))

    def raw_id(self, index: int) -> bytes:
        """Return the document's id as it stands in its line, without decoding the rest. Raises Damaged."""
        start = int(self.offsets[index]) + len(_ID_OPENS)
        line = self.data[start - len(_ID_OPENS) : min(int(self.offsets[index + 1]), start + _ID_MAX)].tobytes()
        end = line.find(b'"', len(_ID_OPENS))
        if not line.startswith(_ID_OPENS) or end < 0:
            raise Damaged("a document record does not begin with its id: its segment was overwritten; restore it")
        return line[len(_ID_OPENS) : end]

    def id_of(self, index: int) -> str:
        """Return the document's id, without decoding the rest of its line. Raises Damaged."""
        raw = self.raw_id(index)
        try:
            return raw.decode("ascii") if b"\\" not in raw else str(json.loads(b'"' + raw + b'"'))
        except ValueError as error:
            raise Damaged("the id of a document is not what it was: its segment was overwritten; restore it") from error

    @staticmethod
    def encoded_id(document_id: str) -> bytes:
        """Return what ``raw_id`` returns for this id."""
        return json.dumps(document_id)[1:-1].encode()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> DocumentRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[DocumentRecord]: ...
    def __getitem__(self, index: int | slice) -> DocumentRecord | list[DocumentRecord]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        record = self._decoded.get(position)
        if record is None:
            if len(self._decoded) >= _REMEMBERED_MAX:
                self._decoded.clear()
            record = self._decoded[position] = _record(self.line(position))
        return record

    def remembered(self, indexes: Iterable[int]) -> dict[int, DocumentRecord | None]:
        """Return these records as far as they are remembered, each once."""
        return {index: self._decoded.get(index) for index in indexes}

    def remember(self, indexes: Sequence[int], *, lines: Iterable[bytes]) -> dict[int, DocumentRecord]:
        """Decode these records from their lines, remember and return them. Raises Damaged."""
        made = dict(zip(indexes, map(_record, lines), strict=True))
        if len(self._decoded) + len(made) > _REMEMBERED_MAX:
            self._decoded.clear()
        self._decoded.update(made)
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # compared by content


def _line(record: DocumentRecord) -> bytes:
    # not asdict(): it copies the metadata deeply, value by value
    return json.dumps(vars(record), sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _record(line: bytes) -> DocumentRecord:
    try:
        return DocumentRecord(**from_json(line))  # three times as fast as json
    except (ValueError, TypeError) as error:
        raise Damaged("a document record is not the JSON it was: its segment was overwritten; restore it") from error
