"""Bytes, names and versions: object store, catalog and ledger, segments, manifests, snapshots, kernels, cache."""
