"""The schema revisions, in order. Each file is frozen once released."""
