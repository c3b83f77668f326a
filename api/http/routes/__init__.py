"""One module per noun of the interface. Each route checks, calls, and words the answer."""
