"""Rotation of the secret key: every sealed value under a new one, while engines live."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmrunner.errors import Conflict
from vmrunner.ledger.encryption import make_key
from vmrunner.ledger.sealed_values import ResealedColumn
from vmrunner.lib import database_url, local_files, process

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger

#: Seconds after which no process writes values that it sealed before the key was changed.
SETTLED: Final = 300.0
HOW_TO_FINISH: Final = (
    f"{SETTLED / 60:.0f} minutes from now `vmrunner db rotate-key --finish` drops the former one"
)


def rotate(ledger: Ledger, *, finish: bool = False) -> list[ResealedColumn]:
    """Seal every value of the ledger under the first key. Where the key is a file beside the
    ledger, put a new one first there, unless a rotation is under way: the former one unseals until
    `finish`, which drops it if nothing is left under it. Raises Conflict when that is too early, or
    where engines of other machines could not read the new one."""
    file = ledger.sealed.key_file
    if file is not None and not finish:
        _refuse_others(ledger, file)
        _begin(file)
    elif file is not None:
        _refuse_early(file)
    columns = ledger.sealed.reseal()
    if file is not None and finish and not any(column.left for column in columns):
        _finish(file)
    detail = "finish" if finish else ""
    ledger.actions.add(process.user(), "rotate-key", "ledger", time.time(), detail)
    return columns


def _refuse_others(ledger: Ledger, file: Path) -> None:
    if ledger.url.startswith(database_url.SQLITE):  # the key lies beside it
        return
    here = process.current().machine
    if any(member.process.machine != here for member in ledger.engines.list()):
        raise Conflict(
            f"{file} is this machine's, and engines of others have or had the ledger: they could "
            "read nothing that is sealed under another key",
            hint="let all of them have VMRUNNER_SECRET_KEY, and change that",
        )


def _begin(file: Path) -> None:
    with local_files.alone(file.parent):
        keys = local_files.read(file) or ""
        if "," not in keys:
            local_files.replace(file, f"{make_key()},{keys}")


def _refuse_early(file: Path) -> None:
    waited = time.time() - file.stat().st_mtime
    if "," in (local_files.read(file) or "") and waited < SETTLED:
        raise Conflict(
            f"{file} has its new key since {waited:.0f} s; what was sealed before may still be "
            "on its way into the ledger",
            hint=f"finish {SETTLED - waited:.0f} s from now",
        )


def _finish(file: Path) -> None:
    with local_files.alone(file.parent):
        first = (local_files.read(file) or "").partition(",")[0].strip()
        local_files.replace(file, first)
