"""Addresses of the names that a VM connects to, asked of the provider's resolver. Within bounds: a
name below a wildcard may be anything, and the server of that zone hears it."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import dns.asyncquery
import dns.exception
import dns.message
import dns.rdatatype

from vmrunner.lib.token_bucket import Bucket, Limit
from vmrunner.model import AllowList

#: Names below wildcards that may be asked for: at once, and again per second.
BELOW: Final = Limit(burst=60, rate=1)
REMEMBERED_NAMES: Final = 1024  # names whose addresses are remembered
_SECONDS: Final = 5.0  # for an answer
_LEAST, _MOST = 5.0, 300.0  # seconds for which an address is believed


class NoAddress(OSError):
    """A name without an address to connect to; the text says why."""


class Lookup:
    """One VM's look-ups. `now` is in seconds and never goes back."""

    def __init__(
        self, allow: AllowList, resolver: str, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._allow = allow
        self._resolver = resolver
        self._now = now
        self._below = Bucket(BELOW, now)
        self._cached: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()
        self._pending: dict[str, asyncio.Task[tuple[str, ...]]] = {}  # that are not answered yet

    async def addresses(self, name: str) -> tuple[str, ...]:
        """Return the IPv4 addresses of a name that is permitted, at least one. Raises
        NoAddress."""
        until, found = self._cached.get(name, (0.0, ()))
        if self._now() >= until and not (found and self._too_many(name)):
            if name not in self._pending:
                self._pending[name] = task = asyncio.create_task(self._learn(name))
                task.add_done_callback(lambda _: self._pending.pop(name))
            found = await asyncio.shield(self._pending[name])  # others may wait for it
        if not found:
            raise NoAddress(f"{name} has no IPv4 address")
        return found

    async def _learn(self, name: str) -> tuple[str, ...]:
        seconds, found = await self._ask(name)
        self._cached[name] = self._now() + seconds, found
        self._cached.move_to_end(name)
        while len(self._cached) > REMEMBERED_NAMES:
            self._cached.popitem(last=False)
        return found

    def _too_many(self, name: str) -> bool:
        return not self._allow.names(name) and self._below.wait(1) > 0

    async def _ask(self, name: str) -> tuple[float, tuple[str, ...]]:
        if self._too_many(name):
            raise NoAddress(f"too many names below a wildcard, such as {name}")
        if not self._allow.names(name):
            self._below.take(1)
        query = dns.message.make_query(name, dns.rdatatype.A)
        try:
            reply, _ = await dns.asyncquery.udp_with_fallback(
                query, self._resolver, timeout=_SECONDS, ignore_unexpected=True
            )
            assert isinstance(reply, dns.message.QueryMessage)
            chain = reply.resolve_chaining()
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise NoAddress(f"{name}: {error or type(error).__name__}") from error
        found = tuple(str(record.address) for record in chain.answer or ())
        return min(max(chain.minimum_ttl, _LEAST), _MOST), found
