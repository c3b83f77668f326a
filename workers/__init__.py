"""Processes that take work from the queue: one module per role, the dispatcher and the Celery application."""
