"""Why something waits, in a word."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.client.wire import HeldUp


def word_of(held_up: "HeldUp") -> str:
    """Return ``paused``, ``retried``, or ``economy``: it waits for an order at the provider."""
    if held_up.paused:
        return "paused"
    return "economy" if held_up.ordered else "retried"
