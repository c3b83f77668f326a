"""What a provider made of an order: its answers, checked and staged batch by batch, for the embed role to find."""

from collections.abc import Callable, Sequence

from penstock.pipeline.embedding.embedder import Vectors
from penstock.pipeline.embedding.orders import Provider, Standing
from penstock.storage.cache import text_digest
from penstock.storage.ledger.members import Member
from penstock.storage.ledger.orders import Delivered, Order
from penstock.storage.segments.rows import Rows

from . import staging
from .components import Components
from .parcels import Parcel, Request, requests_of

HELD_BYTES = 64 << 20  # of vectors that are not staged yet
_NUMBER_BYTES = 4


class Unpacking:
    """Of one order that is over at its provider. ``renew`` keeps the order; it raises Conflict where that is lost."""

    def __init__(
        self, components: Components, order: Order, members: Sequence[Member], *, renew: Callable[[], None]
    ) -> None:
        self._components = components
        self._order = order
        self._renew = renew
        self._requests: dict[str, Request] = {}
        self._parcels = {member.batch_id: Parcel(member) for member in members}
        self._shared: dict[bytes, Vectors | None] = {}  # of texts that several batches want: None until it comes
        for member in members:
            rows = self._rows(member)
            mine = requests_of(member, rows)
            self._parcels[member.batch_id].missing = len(mine)
            self._requests |= {request.name: request for request in mine}
            self._shared |= dict.fromkeys((text_digest(rows.text(row)) for row in member.repeated), None)

    def unpack(self, provider: Provider, standing: Standing) -> Delivered:
        """Stage what was delivered, batch by batch as their last requests come, and return what that is."""
        counts = {name: len(request.rows) for name, request in self._requests.items()}
        delivered = Delivered()
        delivered.costs.price = self._price()
        delivered.costs.wanted = frozenset(self._parcels)
        delivered.costs.whole = standing.state == "completed"
        for file_id in (standing.output_file, standing.error_file):
            for delivery in provider.deliveries(file_id, counts=counts) if file_id else ():
                request = self._requests[delivery.name]
                parcel = self._parcels[request.batch_id]
                if delivery.vectors is not None and parcel.take(request, delivery.vectors, delivery.tokens):
                    self._stage(parcel, delivered)
                if self._is_full():
                    self._stage_all(delivered)
        self._stage_all(delivered)
        for parcel in self._parcels.values():
            self._stage_repeated(parcel.member, delivered)
        return delivered

    def _is_full(self) -> bool:
        """Say whether as much is held as may be: answers come in any order, of all batches at once."""
        held = sum(len(parcel.vectors) for parcel in self._parcels.values())
        return held * self._order.dimensions * _NUMBER_BYTES > HELD_BYTES

    def _stage_all(self, delivered: Delivered) -> None:
        for parcel in self._parcels.values():
            self._stage(parcel, delivered)

    def _price(self) -> float | None:
        embedder = self._components.embedders.of(self._order.model or "", self._order.dimensions)
        return embedder.card.order_price_per_million_tokens

    def _rows(self, member: Member) -> Rows:
        return staging.read_chunks(self._components.objects, member.input)

    def _stage(self, parcel: Parcel, delivered: Delivered) -> None:
        """Stage what came for a batch and is not staged yet, and count what it took: jobs share it by their tokens."""
        if not parcel.vectors:
            return
        member, rows, costs = parcel.member, self._rows(parcel.member), delivered.costs
        vectors = {text_digest(rows.text(row)): vector for row, vector in parcel.vectors.items()}
        self._shared |= {digest: vector.copy() for digest, vector in vectors.items() if digest in self._shared}
        self._write(member, vectors, delivered)
        costs.tokens[member.batch_id] += parcel.tokens or int(rows.tokens[list(parcel.vectors)].sum())
        for row in parcel.vectors:
            version = rows.documents[int(rows.document[row])].version_id
            costs.weights[member.jobs.get(version) or next(iter(member.jobs.values()))] += int(rows.tokens[row])
        parcel.vectors, parcel.tokens = {}, 0

    def _stage_repeated(self, member: Member, delivered: Delivered) -> None:
        """Stage for a batch what others asked for in its place, who pay for it."""
        if not member.repeated:
            return
        rows = self._rows(member)
        digests = [text_digest(rows.text(row)) for row in sorted(member.repeated)]
        found = {digest: vector for digest in digests if (vector := self._shared[digest]) is not None}
        if found:
            self._write(member, found, delivered)

    def _write(self, member: Member, vectors: dict[bytes, Vectors], delivered: Delivered) -> None:
        self._renew()
        name = staging.write_delivered(
            self._components.objects, vectors, tenant=self._order.tenant_id, batch_id=member.batch_id
        )
        delivered.objects.setdefault(member.batch_id, []).append(name)
