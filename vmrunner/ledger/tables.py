"""The tables, as statements are written of them: names alone. `models` defines them, and is loaded
by migrations only: SQLModel brings an ORM, which takes longer than most commands do.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import TableClause, Text, column, table

#: Columns whose `+` joins text.
_TEXT: Final = frozenset({"phases"})


def _table(name: str, columns: str) -> TableClause:
    return table(name, *(column(c, Text()) if c in _TEXT else column(c) for c in columns.split()))


LEDGER: Final = _table("ledger", "id installation generation canary paused_at removed_vm")
BUILDS: Final = _table(
    "builds",
    "id name idempotency_key provider priority state state_since created_at attempt instance "
    "result reason exit_code finished_at owner owner_until epoch cancel cancelled_at hold_until "
    "steps_started cost events chunks log_lines log_bytes tenant actor lease_until source_object "
    "log_object artifacts_object collected log_due keep_logs removed_at unpriced cost_final "
    "price_source price_at message "
    "submitter phases spec secrets revision usage",
)
OBJECTS: Final = _table(
    "objects", "name kind tenant build digest size state created_at unreferenced_since"
)
CACHES: Final = _table("caches", "id tenant scope key path object build created_at used_at")
LABELS: Final = _table("labels", "build name value")
INSTANCES: Final = _table(
    "instances",
    "id build attempt provider role state state_since created_at deadline epoch owner ref address "
    "death message deletes delete_at gone_at pool shape start due claimed_at "
    "usd_hour parked_usd_hour price_source price_at parked_at offer access ordered "
    "revision summed",
)
EVENTS: Final = _table("events", "build seq time kind data")
CHUNKS: Final = _table("chunks", "build seq attempt time offset line data")
ENGINES: Final = _table("engines", "id kind joined_at seen_at process providers version ahead")
LEASES: Final = _table("leases", "name holder until")
HEARTBEATS: Final = _table("heartbeats", "name holder at")
SIGHTINGS: Final = _table("sightings", "provider what subject place sweep begun")
IMAGES: Final = _table(
    "images",
    "id provider scope name recipe hash builder state created_at deadline ref promoted_at "
    "closed_at snapshots message usd_hour price_source price_at",
)
POOLS: Final = _table(
    "pools",
    "name spec shape revision size draining named_at want empty_reason arrivals",
)
POOL_PLACES: Final = _table(
    "pool_places", "pool place want empty_reason failures failing_since noted_at arrivals"
)
POOL_STARTS: Final = _table("pool_starts", "build pool at hit place")
ACTIONS: Final = _table("actions", "id at actor verb subject detail")
PRICES: Final = _table("prices", "kind place item usd_hour at")
BUDGETS: Final = _table("budgets", "name match usd period action actor")
CHARGES: Final = _table("budget_charges", "budget instance")
SPENT: Final = _table("budget_spent", "budget start usd")
TOKENS: Final = _table(
    "tokens",
    "id name digest scopes labels quota actor created_at created_by expires_at revoked_at",
)
LOGINS: Final = _table("logins", "digest token csrf created_at expires_at")
PEOPLE: Final = _table("people", "actor name seen_at")
NOTIFY_ENDPOINTS: Final = _table(
    "notify_endpoints",
    "name events match named_at retry_at failures error delivered_at given_up given_up_at",
)
OUTBOX: Final = _table("outbox", "id endpoint event subject at due tries state data")
REVISIONS: Final = _table("revisions", "id last")
_DAY_SUM: Final = (
    "day key what provider tenant source labels usd seconds unpriced unpriced_ended builds "
    "builds_ended vms vms_ended price_at"
)
SUMMED_DAYS: Final = _table("summed_days", _DAY_SUM)
COST_DAYS: Final = _table("cost_days", _DAY_SUM)
PAST_COUNTS: Final = _table("past_counts", "what provider result reason count usd")
ALL: Final = (
    LEDGER, BUILDS, LABELS, INSTANCES, EVENTS, CHUNKS, ENGINES, LEASES, HEARTBEATS, SIGHTINGS,
    IMAGES, POOLS, POOL_PLACES, POOL_STARTS, ACTIONS, TOKENS, LOGINS, OBJECTS, CACHES, PRICES,
    NOTIFY_ENDPOINTS, OUTBOX, PEOPLE,
    BUDGETS, CHARGES, SPENT, REVISIONS, SUMMED_DAYS, COST_DAYS, PAST_COUNTS,
)  # fmt: skip
