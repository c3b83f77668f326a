"""Run by Alembic, never imported: applies the revisions on the connection that migrate() opened."""

from alembic import context

from penstock.storage.catalog.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # both databases can: a migration that dies leaves nothing behind
)
context.run_migrations()
