"""The files of an index: segments, graphs, tombstones and manifests. Nothing here searches or publishes."""
