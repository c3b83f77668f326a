"""Searching: opened versions, how their segments are searched, and the cache that follows the catalog."""
