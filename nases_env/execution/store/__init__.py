"""The store of results: schema, access, the liveness of lease owners, and checks of all entries."""

from nases_env.execution.store.liveness import Lease, host_identity, process_start_time
from nases_env.execution.store.schema import (
    APPLICATION_ID,
    COLUMNS,
    MIGRATIONS,
    SCHEMA_VERSION,
    migrate_description,
)
from nases_env.execution.store.store import RESULT_COLUMNS, CorruptStoreError, MergeResult, Row, Store

__all__ = [
    "APPLICATION_ID",
    "COLUMNS",
    "MIGRATIONS",
    "RESULT_COLUMNS",
    "SCHEMA_VERSION",
    "CorruptStoreError",
    "Lease",
    "MergeResult",
    "Row",
    "Store",
    "host_identity",
    "migrate_description",
    "process_start_time",
]
