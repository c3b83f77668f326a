"""How fast a provider may be asked: one pair of buckets for each model, endpoint and key, shared in Redis or Valkey.

Losing the server costs speed, never correctness: each process then goes on alone, at half of its own part.
"""

from .limiter import Limiter
from .limits import Answer, Asked, Line, Rates, Told
from .overview import RateStatus, read_rates

__all__ = ["Answer", "Asked", "Limiter", "Line", "RateStatus", "Rates", "Told", "read_rates"]
