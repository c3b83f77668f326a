"""The SQL side of storage: the catalog of tenants and collections, and the ledger of documents and batches."""
