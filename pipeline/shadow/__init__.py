"""The shadow check: the same questions to two generations of a collection, and whether the new one may take over."""

from .check import shadow_check
from .report import K, Latency, ShadowOptions, ShadowReport, ShadowSide, ShadowThresholds

__all__ = [
    "K",
    "Latency",
    "ShadowOptions",
    "ShadowReport",
    "ShadowSide",
    "ShadowThresholds",
    "shadow_check",
]
