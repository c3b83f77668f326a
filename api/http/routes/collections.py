"""Routes: collections of a tenant."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.pipeline.chunking import ChunkingConfig, check_size, resolve
from penstock.pipeline.embedding import ModelCard
from penstock.storage.catalog.collections import (
    CollectionInfo,
    create_collection,
    delete_collection,
    get_collection,
    list_collections,
)
from penstock.storage.catalog.engine import Catalog
from penstock.storage.errors import AlreadyExists

from ...errors import Refused
from .. import answers
from ..bodies import read_json
from ..components import Components, components_of
from ..docs import json_body
from ..lookups import find_collection, find_tenant

router = APIRouter(tags=["collections"])
COLLECTIONS = "/v1/tenants/{tenant}/collections"
