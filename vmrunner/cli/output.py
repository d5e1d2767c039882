"""Output to stdout and stderr: data on the one, talk on the other. Tables are plain columns, so
that they read the same on a terminal and in a pipe; JSON comes in an envelope."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import IO, Any, Final, Generic, TextIO, TypeVar

from vmrunner.lib import ci_commands, request_names
from vmrunner.lib.terminal import clean as clean

T = TypeVar("T")

#: Ids as the texts of log records name them, where those have no fields.
_IDS: Final = {
    name: re.compile(rf"\b{prefix}-[0-9a-hjkmnp-tv-z]{{26}}\b")
    for name, prefix in (("build", "b"), ("instance", "vm"), ("engine", "e"))
}
_UNUSUAL: Final = re.compile(r"[^\n -~]")
_LINES: Final = 24  # of a terminal that does not say how many it has
_COLOURS: Final = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "bold": 1, "dim": 2}


class Format(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """One column of a table; `wide` ones come with `-o wide`."""

    title: str
    text: Callable[[T], str]
    wide: bool = False
    colour: Callable[[T], str] | None = None


@dataclass(frozen=True, slots=True)
class ListView(Generic[T]):
    """The way to show one kind of thing."""

    kind: str
    columns: Sequence[Column[T]]
    document: Callable[[T], Mapping[str, Any]]
    empty: str = ""  # said on stderr when there is nothing


def show(view: ListView[T], items: Sequence[T], form: Format) -> None:
    """Print `items` on stdout."""
    if form is Format.JSON:
        write_json(sys.stdout, view.kind, [view.document(item) for item in items])
    elif form is Format.JSONL:
        for item in items:
            print_out(json_text(view.document(item)))
    elif items:
        columns = [column for column in view.columns if not column.wide or form is Format.WIDE]
        print_out("\n".join(table(columns, items, colour=coloured(sys.stdout))))
    elif view.empty:
        say(view.empty)


def json_envelope(kind: str, items: Iterable[Mapping[str, Any]]) -> str:
    """Return documents in their envelope, as text."""
    from vmrunner.services.documents import envelope

    return json_text(envelope(kind, items), indent=2)


def json_text(document: Mapping[str, Any], *, indent: int | None = None) -> str:
    """JSON that people can read. What a terminal or a CI system would obey, or no encoding holds,
    is escaped: names and log lines come from guests."""
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    return ci_commands.json(_UNUSUAL.sub(_escaped, text))


def _escaped(found: re.Match[str]) -> str:
    character = found.group()
    return character if character.isprintable() else json.dumps(character)[1:-1]


def write_json(stream: IO[str], kind: str, items: Sequence[Mapping[str, Any]]) -> None:
    print(json_envelope(kind, items), file=stream, flush=True)


def table(columns: Sequence[Column[T]], items: Iterable[T], *, colour: bool) -> list[str]:
    """Aligned lines, the titles first."""
    rows = [(item, [clean(column.text(item)) or "-" for column in columns]) for item in items]
    titles = [column.title.upper() for column in columns]
    widths = [
        max(len(title), *(len(cells[at]) for _, cells in rows)) if rows else len(title)
        for at, title in enumerate(titles)
    ]
    lines = ["  ".join(t.ljust(w) for t, w in zip(titles, widths, strict=True)).rstrip()]
    for item, cells in rows:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        padded[-1] = cells[-1]
        if colour:
            padded = [
                paint(cell, column.colour(item)) if column.colour else cell
                for cell, column in zip(padded, columns, strict=True)
            ]
        lines.append("  ".join(padded).rstrip())
    return lines


def coloured(stream: IO[Any]) -> bool:
    """True if this stream may be given colours."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def paint(text: str, colour: str) -> str:
    """`text` in a colour, for a terminal; no name, no colour."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if colour else text


def ready(stream: IO[Any], seconds: float = 0.1) -> bool:
    """True if the stream takes more, at once or within so many seconds. Also when its reader
    has gone."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    return bool(poll.poll(seconds * 1000))


def fill() -> None:
    """Let standard streams that were closed before we began (`>&-`) lead nowhere. Otherwise the
    next file that is opened, the ledger perhaps, would get what is printed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)  # inherited, other than `nowhere`
            if nowhere != number:
                os.close(nowhere)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def print_out(text: str) -> None:
    """Data. What stdout's encoding cannot hold is replaced, never an error."""
    _print(text, sys.stdout)


def print_path(path: str) -> None:
    """A file's name, whole, so that programs find the file; on a terminal, in a CI system and with
    a control character in it without anything that would be obeyed."""
    plain = not any(unicodedata.category(character) == "Cc" for character in path)
    if plain and not sys.stdout.isatty() and ci_commands.words(os.environ) is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")
        sys.stdout.buffer.flush()
    else:
        print_out(clean(path))


def say(text: str) -> None:
    """Talk: one line on stderr, named so that it is never taken for the build's own. Lost where
    that takes none, as a file on a full disk: no build ends by it, and no exit code is another."""
    with _lost_if_refused():
        clear_live()
        _print(f"vmrunner: {clean(text)}", sys.stderr)


def warn(text: str) -> None:
    say(f"warning: {text}")


@contextlib.contextmanager
def _lost_if_refused() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # its reader went away: that ends us
        raise
    except OSError:
        return


_live = False  # is a live line drawn on stderr?


def live(line: Callable[[int], str]) -> None:
    """Draw a line on stderr that is replaced by whatever is said next; none on a terminal that
    stands still. `line` is told how many characters there is room for."""
    global _live
    if not ready(sys.stderr, 0):
        return
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        width = 80
    room = width - 1
    sys.stderr.write(f"\r\x1b[K{clean(line(room))[:room]}")
    sys.stderr.flush()
    _live = True


def clear_live() -> None:
    """Take the live line away, before anything else is written to the terminal."""
    global _live
    if _live:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
        _live = False


@contextlib.contextmanager
def other_screen() -> Iterator[None]:
    """Let stdout, a terminal, show its other screen: what stood there comes back, and nothing that
    can be scrolled to is lost. There a line too long is cut off: it would push others out."""
    _to_terminal("\x1b[?1049h\x1b[?7l")
    try:
        yield
    finally:
        _to_terminal("\x1b[?7h\x1b[?1049l")


def clear_screen() -> None:
    """Let what is printed next stand alone on the other screen."""
    _to_terminal("\x1b[H\x1b[J")


def screen_lines() -> int:
    """Lines that stdout, a terminal, shows at once."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).lines or _LINES
    except OSError:
        return _LINES


def _to_terminal(sequence: str) -> None:
    sys.stdout.write(sequence)
    sys.stdout.flush()


class LibraryLogHandler(logging.Handler):
    """Warnings of the library, said as everything else is."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "warning" if record.levelno < logging.ERROR else "error"
        try:
            say(f"{level}: {record.getMessage()}")
        except Exception:  # noqa: BLE001 - a stderr that closed must not end the caller
            self.handleError(record)


def listen() -> None:
    """Say what the library warns of."""
    logger = logging.getLogger("vmrunner")
    if not any(isinstance(handler, LibraryLogHandler) for handler in logger.handlers):
        logger.addHandler(LibraryLogHandler(logging.WARNING))
    logger.propagate = False


def hand_over() -> None:
    """Leave the library's log to the usual handlers."""
    logger = logging.getLogger("vmrunner")
    for handler in [
        handler for handler in logger.handlers if isinstance(handler, LibraryLogHandler)
    ]:
        logger.removeHandler(handler)
    logger.propagate = True


class PlainFormatter(logging.Formatter):
    """Records as lines that neither a terminal nor a CI system obeys."""

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).splitlines()
        return ci_commands.text("\n".join(map(clean, lines)), os.environ)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        request = request_names.CURRENT.get()
        return super().formatMessage(record) + (f" [request {request}]" if request else "")


class JsonFormatter(logging.Formatter):
    """Records as one line of JSON each, with the ids of builds, VMs and engines that they name."""

    def format(self, record: logging.LogRecord) -> str:
        """`time`: RFC 3339 in UTC."""
        text = record.getMessage()
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        document = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": text,
        }
        if request := request_names.CURRENT.get():
            document["request"] = request
        document |= getattr(record, "fields", {})
        for name, pattern in _IDS.items():
            if name not in document and (found := pattern.search(text)):
                document[name] = found[0]
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json_text(document)


def print_trace() -> None:
    """The exception at hand, on stderr, for who debugs us."""
    with _lost_if_refused():
        _print("\n".join(map(clean, traceback.format_exc().splitlines())), sys.stderr)


_spoken = 0


def spoken() -> int:
    """Number of lines that were written beside the log."""
    return _spoken


def _print(text: str, stream: TextIO) -> None:
    global _spoken
    _spoken += 1
    encoding = stream.encoding or "utf-8"
    text = ci_commands.text(text, os.environ)
    print(text.encode(encoding, "replace").decode(encoding), file=stream, flush=True)
