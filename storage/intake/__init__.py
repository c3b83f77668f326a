"""Accepting what producers ask for: checked, and written into the ledger in one transaction."""
