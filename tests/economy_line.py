"""The roles of one process whose provider takes orders, and a desk that works on them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from penstock.settings import wiring
from penstock.storage.catalog.documents import DocumentInfo, list_documents
from penstock.storage.catalog.tables import ECONOMY, costs, orders, purses
from penstock.storage.intake.documents import Accepted, SubmittedDocument, Terms
from penstock.workers.components import Components
from penstock.workers.liveness import Liveness
from penstock.workers.orders import OrderDesk

from .embedding_endpoint import DIMENSIONS
from .orders_endpoint import OrdersEndpoint
from .role_line import ACME, RoleLine, role_line

TEXTS = {f"d{number}": f"The gate number {number} opens, and water turns wheel {number}." for number in range(6)}


@dataclass
class EconomyLine(RoleLine):
    """Roles whose provider is the ``endpoint``, and a ``desk`` for its orders."""

    endpoint: OrdersEndpoint | None = None
    desk: OrderDesk | None = None

    def submit(self, *, priority: int = ECONOMY, budget_usd: float | None = None, **texts: str) -> Accepted:
        documents = [SubmittedDocument(source, f"{source}.txt", text.encode()) for source, text in texts.items()]
        return self.accept(documents, terms=Terms(priority, budget_usd=budget_usd))

    def settle(self) -> None:
        """Work until nothing is due."""
        idle = 0
        while idle < 2:  # what is handed on is due at the next look
            self.send()
            idle = 0 if self.messages else idle + 1
            while self.messages:
                self.work()
        self.publish()

    def due(self) -> None:
        """Let every order be due, whoever has it."""
        with self.catalog.write("test") as connection:
            connection.execute(sa.update(orders).values(next_look_at=0.0, lease_until=None))

    def tick(self) -> None:
        """Take a step with every order."""
        self.due()
        self.desk.tick(wait_s=0.0)

    def order(self, *, budget_usd: float | None = None, **texts: str) -> Accepted:
        accepted = self.submit(budget_usd=budget_usd, **texts)
        self.settle()
        self.tick()
        return accepted

    def orders(self) -> list[Any]:
        with self.catalog.read() as connection:
            return list(connection.execute(sa.select(orders).order_by(orders.c.id)))

    def documents(self) -> dict[str, DocumentInfo]:
        found = list_documents(self.catalog, tenant=ACME, collection_id=self.collection.id, limit=1_000)
        return {document.source: document for document in found}

    def states(self) -> dict[str, str]:
        return {source: document.state for source, document in self.documents().items()}

    def nearest(self, text: str) -> str:
        """Return which document a search for exactly this text's own vector finds first."""
        snapshots = wiring.new_snapshots(self.components.settings, self.catalog, self.components.objects)
        try:
            with snapshots.get(ACME, self.collection.generation.id) as snapshot:
                vector = np.asarray(self.endpoint.vector_of(text), np.float32)[: self.collection.generation.dimensions]
                return snapshot.search(vector / np.linalg.norm(vector), k=1, now=time.time())[0].document.source
        finally:
            snapshots.close()

    def costs(self) -> tuple[int, float]:
        """Return the tokens and the US dollars that are recorded for everything so far."""
        with self.catalog.read() as connection:
            row = connection.execute(sa.select(sa.func.sum(costs.c.tokens), sa.func.sum(costs.c.cost_usd))).one()
        return int(row[0] or 0), float(row[1] or 0.0)

    def reserved_usd(self) -> float:
        """Return what is set aside for calls and orders under way, of the budgets of the tenant's months."""
        with self.catalog.read() as connection:
            of_months = sa.select(sa.func.sum(purses.c.reserved_usd)).where(purses.c.name.like("month:%"))
            return float(connection.scalar(of_months) or 0.0)

    def embedded_at_once(self) -> list[str]:
        return [text for request in self.endpoint.requests for text in request["input"] if text != "penstock"]


def open_desk(line: EconomyLine) -> OrderDesk:
    """Return a desk of a process of its own, which waits for nothing."""
    components = Components.open(line.components.settings, role="maintenance")
    return OrderDesk(components, liveness=Liveness(), settle_s=0.0)


@contextmanager
def economy_line(folder: Path, endpoint: OrdersEndpoint, **declared: Any) -> Iterator[EconomyLine]:
    """``declared``: settings of the embedding beside or in place of the usual ones."""
    embedding = {
        "model": "openai/local",
        "openai_base_url": endpoint.url,
        "openai_dimensions": DIMENSIONS,
        "openai_api_key": "sk-of-the-test",
        "openai_batches": True,
        "openai_usd_per_million_tokens": 1.0,
        "timeout_s": 5.0,
        "threads": 1,
        **declared,
    }
    workers = {"retry_delay_s": 0.001, "max_attempts": 2}
    with role_line(folder, seed=7, size_tokens=64, kind=EconomyLine, embedding=embedding, workers=workers) as made:
        made.endpoint = endpoint
        made.desk = OrderDesk(made.components, liveness=Liveness(), settle_s=0.0)
        yield made
