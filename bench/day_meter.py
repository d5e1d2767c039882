"""The meter of `bench/day.py`: CPU seconds by part, each without the parts that it calls, and the
samples of what takes a while."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

#: Parts that are not vmrunner's: the played world, and what judges it.
BENCH, CLOUD, BUCKET, JUDGES, CLIENT = "bench", "cloud", "bucket", "judges", "client"
STAND_INS = (BENCH, CLOUD, BUCKET, JUDGES, CLIENT)
LEDGER, SESSIONS = "ledger", "sessions"
#: What no sample has in it: sessions have threads of their own.
ASIDE = (*STAND_INS, SESSIONS)


class Meter:
    """CPU of this process, by (part, whether in the ledger). `aside`: what samples leave out."""

    def __init__(self) -> None:
        self.cpu: Counter[tuple[str, bool]] = Counter()
        self.transactions: Counter[str] = Counter()
        self.samples: defaultdict[str, list[float]] = defaultdict(list)
        self.aside_cpu = self.aside_wall = 0.0
        self._stack: list[tuple[str, bool]] = [(BENCH, False)]
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def _turn(self) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        key = self._stack[-1]
        self.cpu[key] += cpu - self._cpu
        if key[0] in ASIDE:
            self.aside_cpu += cpu - self._cpu
            self.aside_wall += wall - self._wall
        self._cpu, self._wall = cpu, wall

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What follows is this part's. In the ledger it stays the caller's, as its ledger share."""
        self._turn()
        if name == LEDGER:
            caller = self._stack[-1][0]
            self.transactions[caller] += 1
            self._stack.append((caller, True))
        else:
            self._stack.append((name, False))
        try:
            yield
        finally:
            self._turn()
            self._stack.pop()

    @contextmanager
    def sampled(self, name: str) -> Iterator[None]:
        """One sample of the wall time, and one of the CPU, of what follows, without what is
        `ASIDE`. In seconds."""
        self._turn()
        wall, cpu = self._wall - self.aside_wall, self._cpu - self.aside_cpu
        yield
        self._turn()
        self.samples[name].append(self._wall - self.aside_wall - wall)
        self.samples[f"{name}, CPU"].append(self._cpu - self.aside_cpu - cpu)

    def moved(self, to: str, source: str, seconds: float) -> None:
        """Count this much of one part as another's."""
        self._turn()
        self.cpu[source, False] -= seconds
        self.cpu[to, False] += seconds

    def wrap(self, owner: object, part: str, *names: str) -> None:
        """Have these methods of an object counted as that part."""
        for name in names:
            work = getattr(owner, name)

            @wraps(work)
            def counted(*args: Any, _work: Callable[..., Any] = work, **named: Any) -> Any:
                with self.part(part):
                    return _work(*args, **named)

            setattr(owner, name, counted)

    def wrap_pages(self, owner: object, part: str, name: str) -> None:
        """The same of a method that yields."""
        work = getattr(owner, name)

        def counted(*args: Any) -> Iterator[Any]:
            pages = work(*args)
            while True:
                with self.part(part):
                    page = next(pages, None)
                if page is None:
                    return
                yield page

        setattr(owner, name, counted)


def percentile(values: list[float], share: float) -> float:
    """The value below which that share lies; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
