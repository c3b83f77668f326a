"""The client that applications use: one object per server and tenant. Holds no state but its connections."""

from .collections import Collections
from .dead_letters import DeadLetters
from .documents import Documents
from .estimates import Estimates
from .jobs import Jobs
from .questions import Questions
from .reembeddings import Reembeddings
from .schedules import Schedules
from .searches import Searches
from .shadow import Shadow
from .snapshots import Snapshots
from .tenants import Tenants
from .usage import UsageReports
from .webhooks import Webhooks


class Penstock(
    Collections,
    DeadLetters,
    Documents,
    Estimates,
    Jobs,
    Reembeddings,
    Questions,
    Schedules,
    Searches,
    Shadow,
    Snapshots,
    Tenants,
    UsageReports,
    Webhooks,
):
    """One tenant of one Penstock server.

    Every method raises the errors of ``penstock.client.errors``. Safe to use from several threads.

    Args:
        base_url: for example ``http://127.0.0.1:7700``.
        api_key: the installation's key, which `penstock up` prints once.
        tenant: whose collections, documents and jobs all methods speak of.
        timeout_s: longest wait for an answer.
        transport: an httpx transport, for tests.
    """
