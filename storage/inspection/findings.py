"""What was found wrong: how bad it is, with which object, what it means, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ..ids import GenerationId, TenantId

Severity = Literal["error", "warning", "note"]
Check = Literal["manifests", "files", "reachability", "contents", "packs", "orphans", "scratch"]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        severity: ``error``: something accepted cannot be found or may be wrong now. ``warning``: something would be
            missed later, or a past version cannot be opened. ``note``: nothing is wrong, and nothing need be done.
        object: the name of an object, or of what is not one: a generation, a document.
        problem: what is so, and what it means.
        advice: what to do.
    """

    severity: Severity
    check: Check
    object: str
    problem: str
    advice: str
    tenant: TenantId | None = None
    generation: GenerationId | None = None

    def described(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return dict(vars(self))


def is_clean(findings: Iterable[Finding]) -> bool:
    """Say whether there is nothing to do: notes do not count."""
    return all(finding.severity == "note" for finding in findings)
