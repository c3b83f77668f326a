"""Tenants: units of isolation."""

from .messages import Answer, Name, Request


class NewTenant(Request):
    name: Name


class Tenant(Answer):
    name: Name
    created_at: float


class TenantList(Answer):
    data: list[Tenant]
