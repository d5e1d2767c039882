"""Processes, as hosts tell them apart. Every keeper of a local VM needs this and no other noun."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """Identity of a process, so that "gone" can be said with certainty on the same machine."""

    machine: str  # machine id
    boot: str  # boot id
    pid_namespace: str
    pid: int
    started: int  # start time in clock ticks since boot
