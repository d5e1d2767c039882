"""A dump for whoever asks for help: one archive of facts about an installation, without secrets.

What goes in is chosen, and what is chosen is masked: values of secrets that are known here, and
whatever looks like a credential. Builds, their logs, sources and artifacts are no part of it.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vmrunner.config import named_secret, sources
from vmrunner.config.paths import database_url
from vmrunner.errors import ConfigError, VmrunnerError
from vmrunner.lib.masking import MASK, Masker
from vmrunner.services import doctor, nodes, pools, versions
from vmrunner.services.documents import (
    endpoint_document,
    finding_document,
    iso,
    node_document,
    pool_document,
)

if TYPE_CHECKING:
    from vmrunner.config.sources import LoadedSettings
    from vmrunner.runtime.service_parts import ServiceParts
    from vmrunner.store import ObjectStore

NOTIFICATIONS: Final = 1000  # of which alarms are told
LOG_BYTES: Final = 512 << 10  # of the end of each log
_SECRET_NAME: Final = re.compile(
    r"secret|token|passw|credential|private|api_?key|access_?key|(^|_)key($|_)|auth|cookie|dsn",
    re.IGNORECASE,
)
#: What credentials look like, wherever they stand.
_CREDENTIALS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        rb"vmr_[A-Za-z0-9_-]{8,}",
        rb"whsec_[A-Za-z0-9+/=_-]{8,}",
        rb"gh[opusr]_[A-Za-z0-9]{16,}",
        rb"github_pat_[A-Za-z0-9_]{16,}",
        rb"glpat-[A-Za-z0-9_-]{16,}",
        rb"xox[a-z]-[A-Za-z0-9-]{8,}",
        rb"(?:AKIA|ASIA)[A-Z0-9]{16}",
        rb"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
        rb"(?i:(?<=bearer )|(?<=basic ))[A-Za-z0-9._~+/=-]{8,}",
        rb"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        rb"(?<=://)[^/\s\"'@]+(?=@)",
        rb"(?i:(?<=password=)|(?<=passwd=))[^&\s\"']+",
    )
)
_README: Final = """\
Facts about an installation of vmrunner, for whoever helps with it. Secrets that are known here and
whatever looks like a credential are ***. Look at it before you send it on: names of hosts, projects
and users are in it. It has no build's log, source, artifact, environment or labels.
"""

Part = Callable[[], Any]


def dump(
    parts: ServiceParts,
    loaded: LoadedSettings,
    now: float,
    *,
    version: str,
    store: Callable[[], ObjectStore] | None,
    logs: Iterable[Path] = (),
) -> bytes:
    """Make a tar.gz. `store`: for `doctor`; None: leave that out. `logs`: more logs whose ends go
    in; `version`: ours. A part that cannot be had is its error."""
    files: dict[str, bytes] = {"README.txt": _README.encode()}
    masked = _mask(_secrets(loaded))
    for name, part in _parts(parts, loaded, now, version, store).items():
        try:
            text = json.dumps(part(), indent=2, ensure_ascii=False)
        except (VmrunnerError, OSError) as error:
            text = json.dumps({"error": f"{type(error).__name__}: {error}"})
        files[f"{name}.json"] = masked(text.encode(errors="replace"))
    own = [parts.paths.engine_log] if parts.paths.engine_log.is_file() else []
    for path in (*own, *logs):
        files[f"logs/{path.name}"] = masked(_end(path))
    return _packed(files, now)


def dump_of_refused(error: ConfigError, now: float, *, version: str) -> bytes:
    """Make a tar.gz where the configuration itself is refused. It has no log: which secrets may be
    in one is not known then."""
    masked = _mask(_secrets_of_variables())
    parts = {
        "versions": {**versions.ours(version), "distributions": versions.distributions()},
        "configuration": {**_files_and_variables(), "error": str(error)},
    }
    files = {"README.txt": _README.encode()}
    for name, part in parts.items():
        text = json.dumps(part, indent=2, ensure_ascii=False)
        files[f"{name}.json"] = masked(text.encode(errors="replace"))
    return _packed(files, now)


def _files_and_variables() -> dict[str, Any]:
    return {
        "files": [
            {"source": place.source, "path": str(place.path), "state": place.state}
            for place in sources.places(os.environ, sources.here())
        ],
        "variables": sorted(name for name in os.environ if name.startswith(sources.PREFIX)),
    }


def _parts(
    parts: ServiceParts,
    loaded: LoadedSettings,
    now: float,
    version: str,
    store: Callable[[], ObjectStore] | None,
) -> dict[str, Part]:
    ledger = parts.ledgers.open
    return {
        "versions": lambda: {**versions.ours(version), "distributions": versions.distributions()},
        "configuration": lambda: {
            **_files_and_variables(),
            "values": [_setting(*row) for row in loaded.rows(readable=True)],
        },
        "database": lambda: _database(loaded),
        "doctor": lambda: "left out" if store is None else _doctor(parts, store),
        "counts": lambda: {
            "builds": ledger().builds.counts(),
            "open_vms": dict(Counter(row.state.value for row in ledger().instances.open())),
            "drained": ledger().paused,
        },
        "nodes": lambda: [node_document(node) for node in nodes.status(ledger(), now)],
        "pools": lambda: [pool_document(e) for e in pools.status(ledger(), parts.providers)],
        "webhooks": lambda: [endpoint_document(e) for e in ledger().outbox.status()],
        "alarms": lambda: [
            {"event": event.value, "subject": subject, "at": iso(at)}
            for event, subject, at in ledger().outbox.newest_alarms(NOTIFICATIONS)
        ],
    }


def _setting(key: str, text: str, origin: str) -> dict[str, Any]:
    value = json.loads(text)
    if value is not None and (_SECRET_NAME.search(key) or key.startswith("notify")):
        value = _shown(value)
    return {"key": key, "value": value, "origin": origin}


def _shown(value: Any) -> Any:
    """A mask for a value under the name of a secret: all that is told is that it is there."""
    if isinstance(value, Mapping):
        return {name: _shown(found) for name, found in value.items()}
    if isinstance(value, list):
        return [_shown(found) for found in value]
    return value if isinstance(value, bool | int | float) or not value else MASK.decode()


def _database(loaded: LoadedSettings) -> dict[str, Any]:
    from vmrunner.ledger import Ledger

    state = Ledger.state(database_url(loaded.settings))
    return {
        "url": state.url,
        "version": state.version,
        "newest": state.newest,
        "pending": state.pending,
        "bytes": state.size,
    }


def _doctor(parts: ServiceParts, store: Callable[[], ObjectStore]) -> list[Any]:
    found = doctor.doctor(parts.ledgers, parts.providers, parts.limits(), parts.paths, store=store)
    return [finding_document(finding) for finding in found]


def _end(path: Path) -> bytes:
    """The last bytes of a file, from the beginning of a line on."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LOG_BYTES))
        text = file.read(LOG_BYTES)
    return text if size <= LOG_BYTES else text.partition(b"\n")[2]


# --- secrets --------------------------------------------------------------------------------------


def _mask(found: Iterable[bytes]) -> Callable[[bytes], bytes]:
    """A function that takes these secrets out of bytes, and what looks like one."""
    secrets = sorted(set(found), key=len, reverse=True)

    def masked(data: bytes) -> bytes:
        for value in secrets:  # as JSON writes it too
            data = data.replace(json.dumps(value.decode(errors="replace"))[1:-1].encode(), MASK)
        masker = Masker(secrets)
        data = masker.feed(data) + masker.finish()
        for pattern in _CREDENTIALS:
            data = pattern.sub(MASK, data)
        return data

    return masked


def _secrets(loaded: LoadedSettings) -> Iterator[bytes]:
    """The secrets that are at hand: of variables, of the configuration, and in files it names."""
    yield from _secrets_of_variables()
    settings = loaded.settings
    if settings.secret_key is not None:
        yield from _usable(settings.secret_key.get_secret_value())
    for pattern in (r"://[^:/@]*:(.+)@", r"(?i)passw\w*=([^&\s]+)"):
        for found in re.findall(pattern, database_url(settings)):
            yield from _usable(found)
    for webhook in settings.notify:
        yield from _usable(webhook.url)
    for key, text, _ in loaded.rows():
        if _SECRET_NAME.search(key) or key.startswith("notify"):
            for value in _texts(json.loads(text)):
                yield from _named(value)


def _secrets_of_variables() -> Iterator[bytes]:
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name):
            yield from _usable(value)


def _named(reference: str) -> Iterator[bytes]:
    """The secret that a value of the configuration names, or may be."""
    try:
        yield named_secret.read(named_secret.check(reference), "secret", os.environ)
    except (ConfigError, ValueError):
        yield from _usable(reference)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for found in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(found)


def _usable(value: str) -> Iterator[bytes]:
    """A value that is long enough to be none by chance."""
    text = value.strip()
    if len(text) >= 6 and not text.isdecimal():
        yield text.encode(errors="surrogateescape")


def _packed(files: Mapping[str, bytes], now: float) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(f"vmrunner-support/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(now), 0o600
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
