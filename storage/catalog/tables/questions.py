"""Tables of what a re-embedding is judged by: searches that were asked, and which documents answer a question."""

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

from .conventions import metadata

recorded_queries = Table(  # some of the latest different searches of a collection
    "recorded_queries",
    metadata,
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("digest", LargeBinary, nullable=False),  # blake2b-128 of text and filter
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("text", Text),  # NULL: all searches by vector together, of which no more is kept
    Column("filter", JSON(none_as_null=True)),
    Column("times", BigInteger, nullable=False),
    Column("first_at", Double, nullable=False),
    Column("last_at", Double, nullable=False),
    PrimaryKeyConstraint("collection_id", "digest"),
    Index(None, "tenant_id"),
    Index(None, "last_at"),
)

judgements = Table(  # how well a document answers a question, by people who know
    "judgements",
    metadata,
    Column("collection_id", ForeignKey("collections.id"), nullable=False),
    Column("digest", LargeBinary, nullable=False),  # blake2b-128 of question and document
    Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    Column("query", Text, nullable=False),
    Column("source", Text),  # of the document: this or its id
    Column("document_id", String(64)),
    Column("grade", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    PrimaryKeyConstraint("collection_id", "digest"),
    CheckConstraint("(source IS NULL) <> (document_id IS NULL)", name="document"),
    Index(None, "tenant_id"),
)
