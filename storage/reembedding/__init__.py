"""Re-embedding: a generation that follows the active one of its collection, until it takes over from it.

The one that follows copies what a version of the active one serves, then what differs since, again and again. Slices of
documents are embedded like any others, at the lowest priority; the writer of the shard publishes them, and switches in
one transaction when the one that follows holds exactly what the active one does. The ledger of documents knows nothing
of it: documents are the collection's.
"""
