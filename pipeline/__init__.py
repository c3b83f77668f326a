"""Pure computation: parsing, chunking, embedding providers, filters, retrieval. It does no I/O of its own."""
