"""Chunks of documents as columns: what staging objects, segments and searches pass to each other.

It holds no vectors and no chunk ids, and it does no I/O.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import Damaged
from .ragged import fits, join_arrays, join_offsets, pack_items, take_items
from .records import DocumentRecord, Documents
from .sections import Array, Sections

IDENTITY_BYTES = 16
_COLUMNS = {"document": "<u4", "ordinal": "<u4", "start": "<u4", "end": "<u4", "page": "<i4", "tokens": "<u4"}
_RAGGED = (("text_bytes", "text_offsets"), ("heading_bytes", "heading_offsets"))
_DOCUMENTS = ("document_bytes", "document_offsets")


@dataclass(frozen=True, eq=False)
class Rows:
    """``n`` chunks; ``documents[document[i]]`` owns row ``i``.

    Texts and headings are UTF-8 in one byte array each; row ``i`` is ``bytes[offsets[i]:offsets[i + 1]]``.
    """

    documents: Documents
    document: NDArray[np.uint32]
    ordinal: NDArray[np.uint32]  # position of the chunk in its document
    start: NDArray[np.uint32]  # character offsets into the parsed text, end exclusive
    end: NDArray[np.uint32]
    page: NDArray[np.int32]  # 1-based, -1 where the format has none
    tokens: NDArray[np.uint32]
    identity: NDArray[np.uint8]  # (n, 16)
    text_bytes: NDArray[np.uint8]
    text_offsets: NDArray[np.uint64]  # n + 1
    heading_bytes: NDArray[np.uint8]
    heading_offsets: NDArray[np.uint64]  # n + 1; an empty heading means none

    @classmethod
    def build(
        cls,
        documents: Iterable[DocumentRecord],
        *,
        document: ArrayLike,
        ordinal: ArrayLike,
        start: ArrayLike,
        end: ArrayLike,
        page: ArrayLike,
        tokens: ArrayLike,
        identity: Sequence[bytes] | NDArray[np.uint8],
        texts: Sequence[str],
        headings: Sequence[str | None],
    ) -> "Rows":
        """Make rows of plain columns of equal length.

        Raises:
            ValueError: the columns differ in length, or a row names a document that is not there.
        """
        given = (document, ordinal, start, end, page, tokens)
        columns = {
            name: np.asarray(column, dtype) for (name, dtype), column in zip(_COLUMNS.items(), given, strict=True)
        }
        raw = identity if isinstance(identity, np.ndarray) else np.frombuffer(b"".join(identity), np.uint8)
        text_bytes, text_offsets = pack_items([_encoded(text) for text in texts])
        heading_bytes, heading_offsets = pack_items([_encoded(heading or "") for heading in headings])
        rows = cls(
            documents=Documents.of(documents),
            **columns,
            identity=raw.reshape(-1, IDENTITY_BYTES),
            text_bytes=text_bytes,
            text_offsets=text_offsets,
            heading_bytes=heading_bytes,
            heading_offsets=heading_offsets,
        )
        rows._check(ValueError, source="rows")
        return rows

    @classmethod
    def empty(cls) -> "Rows":
        """Return no rows of no documents."""
        return cls.concat([])

    @classmethod
    def concat(cls, several: Sequence["Rows"]) -> "Rows":
        """Join rows in order. Equal documents (parts of one large document) become one."""
        lines: dict[bytes, int] = {}
        numbers = [
            [lines.setdefault(rows.documents.line(i), len(lines)) for i in range(len(rows.documents))]
            for rows in several
        ]
        return cls._joined(several, documents=Documents.of_lines(list(lines)), numbers=numbers)

    @classmethod
    def stack(cls, several: Sequence["Rows"]) -> "Rows":
        """Join rows in order, which have no document in common: none is looked at."""
        firsts = np.cumsum([0, *(len(rows.documents) for rows in several)])
        numbers = [np.arange(first, end) for first, end in pairwise(firsts)]
        return cls._joined(several, documents=Documents.stack([rows.documents for rows in several]), numbers=numbers)

    @classmethod
    def _joined(cls, several: Sequence["Rows"], *, documents: Documents, numbers: Sequence[ArrayLike]) -> "Rows":
        """Join rows; ``numbers``: for each of ``several``, the new positions of its documents."""
        owners = [np.asarray(new, "<u4")[rows.document] for rows, new in zip(several, numbers, strict=True)]
        columns = {
            name: join_arrays([getattr(rows, name) for rows in several], dtype=dtype)
            for name, dtype in _COLUMNS.items()
            if name != "document"
        }
        ragged: dict[str, Array] = {}
        for data, offsets in _RAGGED:
            ragged[data] = join_arrays([getattr(rows, data) for rows in several], dtype="|u1")
            ragged[offsets] = join_offsets([getattr(rows, offsets) for rows in several])
        identity = join_arrays([rows.identity for rows in several], dtype="|u1").reshape(-1, IDENTITY_BYTES)
        return cls(
            documents=documents, document=join_arrays(owners, dtype="<u4"), identity=identity, **columns, **ragged
        )

    @classmethod
    def from_sections(cls, sections: Sections) -> "Rows":
        """View the rows in an opened container; texts and documents are decoded when asked for.

        Raises:
            Damaged: a section is missing, or lengths and offsets contradict each other.
        """
        rows = cls(**cls._viewed(sections))
        rows._check(Damaged, source=sections.source)
        return rows

    @classmethod
    def read(cls, sections: Sections, wanted: NDArray[np.uint32]) -> "Rows":
        """Copy some rows out of an opened container. Looks at what is theirs only, however many there are beside them.

        Raises:
            Damaged: a section is missing, or what is said of these rows contradicts itself.
        """
        rows = cls(**cls._viewed(sections))
        rows._check(Damaged, source=sections.source, at=wanted)
        return rows.take(wanted)

    @classmethod
    def _viewed(cls, sections: Sections) -> dict[str, Any]:
        arrays = sections.arrays
        names = [field.name for field in fields(cls) if field.name != "documents"]
        missing = [name for name in (*names, *_DOCUMENTS) if name not in arrays]
        if missing:
            raise Damaged(f"{sections.source} lacks the sections {', '.join(missing)}")
        documents = Documents(arrays["document_bytes"], arrays["document_offsets"])
        return {"documents": documents, **{name: arrays[name] for name in names}}

    def to_arrays(self) -> dict[str, Array]:
        """Return the sections that ``from_sections`` reads."""
        columns = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "documents"}
        return {**columns, "document_bytes": self.documents.data, "document_offsets": self.documents.offsets}

    def take(self, rows: NDArray[Any]) -> "Rows":
        """Return these rows, in this order, and only the documents they belong to.

        Args:
            rows: positions, or a boolean mask of length ``n``.
        """
        chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        used, owner = np.unique(self.document[chosen], return_inverse=True)
        columns = {name: getattr(self, name)[chosen] for name in _COLUMNS if name != "document"}
        ragged: dict[str, Array] = {}
        for data, offsets in _RAGGED:
            ragged[data], ragged[offsets] = take_items(getattr(self, data), getattr(self, offsets), chosen)
        return Rows(
            documents=Documents(*take_items(self.documents.data, self.documents.offsets, used)),
            document=owner.astype("<u4"),
            identity=self.identity[chosen],
            **columns,
            **ragged,
        )

    def text(self, index: int) -> str:
        return decoded(self.text_bytes[int(self.text_offsets[index]) : int(self.text_offsets[index + 1])].tobytes())

    def heading(self, index: int) -> str | None:
        start, end = int(self.heading_offsets[index]), int(self.heading_offsets[index + 1])
        return decoded(self.heading_bytes[start:end].tobytes()) or None

    def texts(self) -> list[str]:
        return [self.text(index) for index in range(len(self))]

    @cached_property
    def document_ids(self) -> list[str]:
        """The id of each document, in the order of ``documents``. Decodes them all."""
        return [record.document_id for record in self.documents]

    def __len__(self) -> int:
        return len(self.document)

    def _check(self, error: type[Exception], *, source: str, at: NDArray[np.uint32] | None = None) -> None:
        """Check what a reader relies on to stay inside the arrays: a pass over each small column, or ``at`` rows."""
        count = len(self)
        if at is not None and len(at) and int(at.max()) >= count:
            raise error(f"{source}: row {int(at.max())} of {count} is asked for")
        for name, dtype in _COLUMNS.items():
            column = getattr(self, name)
            if column.shape != (count,) or column.dtype != np.dtype(dtype):
                raise error(f"{source}: column {name!r} is {column.dtype}{column.shape}, not {dtype}({count},)")
        if self.identity.shape != (count, IDENTITY_BYTES):
            raise error(f"{source}: the identities have the shape {self.identity.shape}, not {(count, IDENTITY_BYTES)}")
        owners = self.document if at is None else np.unique(self.document[at])
        if len(owners) and int(owners.max()) >= len(self.documents):
            raise error(f"{source}: a row belongs to a document that is not there")
        ragged = [(getattr(self, data), getattr(self, offsets), count, at) for data, offsets in _RAGGED]
        ragged.append(
            (self.documents.data, self.documents.offsets, len(self.documents), None if at is None else owners)
        )
        if not all(fits(data, offsets, count=items, at=places) for data, offsets, items, places in ragged):
            raise error(f"{source}: texts, headings or documents do not lie where their offsets say")


def chunk_identity(text: str, *, chunking: Mapping[str, Any]) -> bytes:
    """Return 16 bytes that are equal for equal text cut by equal chunking settings (blake2b-128)."""
    settings = json.dumps(chunking, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return blake2b(settings + b"\0" + _encoded(text), digest_size=IDENTITY_BYTES).digest()


def decoded(text: bytes) -> str:
    """Return the text of a chunk or heading. Raises Damaged."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise Damaged("the text of a chunk is not UTF-8: its segment was overwritten; restore or rebuild it") from error


def _encoded(text: str) -> bytes:
    """Encode, with '?' for the lone surrogates that no UTF-8 can hold; the number of characters stays."""
    return text.encode("utf-8", "replace")
