"""Interfaces for programs and people: HTTP, command line, the supervisor behind `penstock up`."""
