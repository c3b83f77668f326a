"""Schedules as rows of their collection: they go when it goes. What they do is in ``storage/schedules``."""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ids import CollectionId
from .tables import schedule_runs, schedules


def delete_schedules(connection: Connection, collection_id: CollectionId) -> None:
    """Forget the collection's schedules and their runs; whoever works on one of these gets Conflict."""
    its_own = sa.select(schedules.c.id).where(schedules.c.collection_id == collection_id).order_by(schedules.c.id)
    held = connection.scalars(its_own.with_for_update()).all()  # beat adds no run to them from here on
    if held:
        connection.execute(sa.delete(schedule_runs).where(schedule_runs.c.schedule_id.in_(its_own)))
        connection.execute(sa.delete(schedules).where(schedules.c.collection_id == collection_id))
