"""The HTTP interface. Decides nothing: it checks requests, calls storage/ and pipeline/, and words the answers."""
