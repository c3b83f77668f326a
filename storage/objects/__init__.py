"""The object store: write-once files under names, in a local directory or in a bucket."""
