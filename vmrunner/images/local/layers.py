"""Layers of container images as Docker's overlay2 driver keeps them, made from their tars.

    overlay2/ID/diff/…                 the layer's files
    overlay2/ID/link, overlay2/l/LINK  its short name, for the kernel's list of layers
    overlay2/ID/lower, work            of one that lies on others
    image/overlay2/layerdb/sha256/…    its digests, and the headers of its tar (tar-split), by
                                       which Docker writes the very same tar again

So no VM boots to load them. A tar is read once, as it comes. What it names lies in this layer: a
name that leads out of it, or through a link, is refused.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any, Final

from vmrunner.errors import ImageError
from vmrunner.images.local.crc64 import crc64
from vmrunner.images.local.pax_names import BLOCK, padded

LAYERS: Final = "image/overlay2/layerdb/sha256"

_META: Final = frozenset(b"xLK")  # types of headers that belong to the one after them
_GLOBAL: Final = ord("g")
_LONG_NAME: Final = ord("L")
_LARGEST_META: Final = 1 << 20  # bytes of such a header
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_CAPABILITY: Final = "SCHILY.xattr.security.capability"  # the one that mke2fs takes from a tar
_XATTR: Final = "SCHILY.xattr."
_COPY: Final = 1 << 20
_IDS: Final = 65536  # users and groups of Docker's namespace


@dataclass(frozen=True)
class Xattr:
    """An attribute of a file, which is set once the file system is made."""

    path: str
    name: str
    value: str  # with surrogates for bytes that are no UTF-8


@dataclass(frozen=True)
class Layer:
    """A layer in Docker's store."""

    diff: str  # digest of its tar
    chain: str  # digest of it and of those below
    cache: str  # name of its directory
    newest: int  # time in it, epoch seconds
    xattrs: tuple[Xattr, ...] = ()

    @property
    def link(self) -> str:
        """Short name of its directory."""
        return short_name(self.cache)


@dataclass(frozen=True)
class StoreRoot:
    """Docker's store in a VM. `root`: its directory, without slashes around. `first`: the user and
    group that root of a container is in the VM."""

    root: str
    first: int = 0


def short_name(cache: str) -> str:
    return base64.b32encode(bytes.fromhex(cache))[:26].decode()


def directory(path: str, mode: int, *, uid: int = 0, gid: int = 0) -> tarfile.TarInfo:
    """A member of a tar."""
    member = tarfile.TarInfo(path)
    member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, mode, uid, gid
    return member


def put_file(to: IO[bytes], path: str, content: bytes, mode: int) -> None:
    """Write a file of root's as a member of a tar."""
    member = tarfile.TarInfo(path)
    member.size, member.mode = len(content), mode
    to.write(_header(member) + content + b"\0" * (padded(len(content)) - len(content)))


def put(to: IO[bytes], members: Iterable[tarfile.TarInfo]) -> None:
    """Write members without content."""
    for member in members:
        to.write(_header(member))


def write(
    source: IO[bytes], to: IO[bytes], *, cache: str, below: Sequence[Layer], place: StoreRoot
) -> Layer:
    """Write the members of one layer's tar to a tar of the VM's root, without its end.

    `cache`: 64 hex digits, the name of its directory. `below`: the layers under it, the lowest
    first. Raises ImageError for a tar that Docker would refuse, and for one with sparse files."""
    writer = _Writer(source, to, cache, place)
    writer.begin(below)
    for member, name in writer.members():
        writer.add(member, name)
    return writer.finish(below)


@dataclass(eq=False)
class _Split:
    """Docker's record of a layer's tar: all but the files' bytes, a line of JSON an entry."""

    entries: int = 0
    data: bytearray = field(default_factory=bytearray)
    packer: Any = field(default_factory=lambda: zlib.compressobj(6, wbits=31))

    def segment(self, raw: bytes) -> None:
        """Bytes between two files."""
        if raw:
            self._add({"type": 2, "payload": base64.b64encode(raw).decode()})

    def file(self, name: bytes, size: int, checksum: bytes | None) -> None:
        """A file, whose bytes are in the layer."""
        try:
            named = {"name": name.decode()}
        except UnicodeDecodeError:
            named = {"name_raw": base64.b64encode(name).decode()}
        payload = None if checksum is None else base64.b64encode(checksum).decode()
        self._add({"type": 1, **named, **({"size": size} if size else {}), "payload": payload})

    def finish(self) -> bytes:
        return bytes(self.data + self.packer.flush())

    def _add(self, entry: dict[str, Any]) -> None:
        line = json.dumps({**entry, "position": self.entries}, separators=(",", ":"))
        self.data += self.packer.compress(line.encode() + b"\n")
        self.entries += 1


@dataclass(eq=False)
class _Writer:
    """One layer under way."""

    source: IO[bytes]
    to: IO[bytes]
    cache: str
    place: StoreRoot
    digest: Any = field(default_factory=hashlib.sha256)
    split: _Split = field(default_factory=_Split)
    raw: bytearray = field(default_factory=bytearray)  # headers and padding since the last file
    kinds: dict[str, bytes] = field(default_factory=lambda: {"": tarfile.DIRTYPE})
    xattrs: list[Xattr] = field(default_factory=list)
    size: int = 0
    newest: int = 0

    @property
    def home(self) -> str:
        return f"{self.place.root}/overlay2/{self.cache}"

    # --- the tar that comes ---------------------------------------------------------------------

    def members(self) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        """Members with their names as Docker's record has them. Who takes one reads its content."""
        start, long_name = len(self.raw), b""
        while any(header := self._read(BLOCK, end=True)):
            self.raw += header
            kind = header[156]
            if kind in _META or kind == _GLOBAL:
                body = self._meta(header)
                long_name = body if kind == _LONG_NAME else long_name
                if kind in _META:
                    continue
                self._flush()  # Docker passes it by
                self.split.file(header[:100].rstrip(b"\0"), 0, None)
            else:
                member = _parsed(bytes(self.raw[start:]))
                self._flush()
                yield member, _name(member, header, long_name)
            start, long_name = len(self.raw), b""
        self.raw += header
        self._flush()
        while rest := self.source.read(_COPY):  # zeros, which the digest covers
            self.digest.update(rest)
            self.split.segment(rest)

    def _meta(self, header: bytes) -> bytes:
        size = tarfile.nti(header[124:136])  # type: ignore[attr-defined]
        if not 0 <= size <= _LARGEST_META:
            raise ImageError(f"layer: a header of {size} bytes")
        body = self._read(padded(size))
        self.raw += body
        return body[:size].rstrip(b"\0")

    def _flush(self) -> None:
        self.split.segment(bytes(self.raw))
        self.raw.clear()

    def _read(self, size: int, *, end: bool = False) -> bytes:
        """`size` bytes; none where the tar may `end`, and does."""
        data = self.source.read(size)
        while data and len(data) < size and (more := self.source.read(size - len(data))):
            data += more
        if len(data) < size and not (end and not data):
            raise ImageError("layer: its tar is cut")
        self.digest.update(data)
        return data

    def _content(self, size: int, *, kept: bool) -> Iterator[bytes]:
        """A file's bytes, written as they are read."""
        for start in range(0, size, _COPY):
            block = self._read(min(_COPY, size - start))
            if kept:
                self.to.write(block)
            yield block
        if kept:
            self.to.write(b"\0" * (padded(size) - size))

    # --- the tar that goes ----------------------------------------------------------------------

    def begin(self, below: Sequence[Layer]) -> None:
        first, short = self.place.first, short_name(self.cache)
        link = tarfile.TarInfo(f"{self.place.root}/overlay2/l/{short}")
        link.type, link.mode, link.linkname = tarfile.SYMTYPE, 0o777, f"../{self.cache}/diff"
        top = directory(f"{self.home}/diff", 0o755, uid=first, gid=first)
        put(self.to, [link, directory(self.home, 0o710, gid=first), top])
        put_file(self.to, f"{self.home}/link", short.encode(), 0o644)
        if below:
            lower = ":".join(f"l/{layer.link}" for layer in reversed(below))
            put_file(self.to, f"{self.home}/lower", lower.encode(), 0o644)
            put(self.to, [directory(f"{self.home}/work", 0o700, uid=first, gid=first)])

    def add(self, member: tarfile.TarInfo, name: bytes) -> None:
        size = member.size if member.isreg() else 0
        placed = self._placed(member)
        if placed is not None:
            self.to.write(_header(placed))
        kept = placed is not None and placed.isreg()
        checksum = crc64(self._content(size, kept=kept)) if size else None
        self.raw += self._read(padded(size) - size)
        self.split.file(name, size, checksum)
        self.size += len(member.linkname) if member.issym() else size  # as Docker counts
        self.newest = max(self.newest, int(member.mtime))

    def _placed(self, member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        """The member as one of the VM's root; None: it tells Docker something, and is no file."""
        readable = set(tarfile.SUPPORTED_TYPES) - {tarfile.GNUTYPE_SPARSE}
        if member.issparse() or member.type not in readable:
            raise ImageError(f"layer: {member.name!r}: no file of this type can be read")
        parts = _inside(member.name)
        parent, base = self._parent(parts), parts[-1] if parts else ""
        if base == _OPAQUE:
            path = f"{self.home}/diff/{parent}".rstrip("/")
            self.xattrs.append(Xattr(path, "trusted.overlay.opaque", "y"))
            return None
        if base.startswith(2 * _WHITEOUT):
            return None
        placed = tarfile.TarInfo()
        placed.type, placed.mode, placed.mtime = member.type, member.mode, int(member.mtime)
        placed.uid, placed.gid = self._id(member.uid), self._id(member.gid)
        placed.devmajor, placed.devminor = member.devmajor, member.devminor
        placed.size = member.size if member.isreg() else 0
        placed.linkname = member.linkname
        if base.startswith(_WHITEOUT):
            base = base.removeprefix(_WHITEOUT)
            placed.type, placed.mode, placed.size = tarfile.CHRTYPE, 0, 0
            placed.devmajor = placed.devminor = 0
        elif member.islnk():
            placed.linkname = f"{self.home}/diff/{self._target(member)}"
        name = f"{parent}/{base}".strip("/")
        placed.name = f"{self.home}/diff/{name}".rstrip("/")
        self._keep_xattrs(member, placed)
        self.kinds[name] = tarfile.REGTYPE if placed.isreg() else placed.type
        return placed

    def _parent(self, parts: Sequence[str]) -> str:
        """The directory that a member lies in, which is made where the tar has none."""
        above = ""
        for part in parts[:-1]:
            above = f"{above}/{part}".lstrip("/")
            kind = self.kinds.setdefault(above, b"")
            if not kind:
                first = self.place.first
                new = directory(f"{self.home}/diff/{above}", 0o755, uid=first, gid=first)
                put(self.to, [new])
                self.kinds[above] = tarfile.DIRTYPE
            elif kind != tarfile.DIRTYPE:
                raise ImageError(f"layer: {'/'.join(parts)!r}: {above!r} is no directory")
        return above

    def _target(self, member: tarfile.TarInfo) -> str:
        """The file that a hard link shares."""
        target = "/".join(_inside(member.linkname))
        if self.kinds.get(target, tarfile.DIRTYPE) == tarfile.DIRTYPE:
            raise ImageError(f"layer: {member.name!r}: no file {member.linkname!r} to link to")
        return target

    def _keep_xattrs(self, member: tarfile.TarInfo, placed: tarfile.TarInfo) -> None:
        for key, value in member.pax_headers.items():
            if key == _CAPABILITY:
                placed.pax_headers = {key: value}
            elif key.startswith(_XATTR):
                self.xattrs.append(Xattr(placed.name, key.removeprefix(_XATTR), value))

    def _id(self, number: int) -> int:
        if self.place.first and not 0 <= number < _IDS:
            raise ImageError(f"layer: user or group {number} is not in Docker's namespace")
        return self.place.first + number

    def finish(self, below: Sequence[Layer]) -> Layer:
        diff = f"sha256:{self.digest.hexdigest()}"
        chain = chain_of(diff, below[-1].chain if below else None)
        home = f"{self.place.root}/{LAYERS}/{chain.removeprefix('sha256:')}"
        put(self.to, [directory(home, 0o700)])
        facts = {"diff": diff, "size": str(self.size), "cache-id": self.cache}
        if below:
            facts["parent"] = below[-1].chain
        for name, text in facts.items():
            put_file(self.to, f"{home}/{name}", text.encode(), 0o644)
        put_file(self.to, f"{home}/tar-split.json.gz", self.split.finish(), 0o644)
        return Layer(diff, chain, self.cache, self.newest, tuple(self.xattrs))


def chain_of(diff: str, below: str | None) -> str:
    """Digest of a layer and of those below, of which `below` is the digest."""
    if below is None:
        return diff
    return f"sha256:{hashlib.sha256(f'{below} {diff}'.encode()).hexdigest()}"


def _inside(name: str) -> list[str]:
    """A member's path below the layer, part by part. Raises ImageError where it leads out of it."""
    parts = [part for part in PurePosixPath(name).parts if part != "/"]
    if ".." in parts or "\0" in name:
        raise ImageError(f"layer: {name!r}: a name may not lead out of it")
    return parts


def _parsed(headers: bytes) -> tarfile.TarInfo:
    """The member of these headers, of which the last is its own."""
    try:
        if len(headers) == BLOCK:
            return tarfile.TarInfo.frombuf(headers, "utf-8", "surrogateescape")
        with tarfile.open(fileobj=io.BytesIO(headers), mode="r:", encoding="utf-8") as tar:
            if (member := tar.next()) is not None:
                return member
    except (tarfile.TarError, ValueError) as error:
        raise ImageError(f"layer: its tar cannot be read: {error}") from None
    raise ImageError("layer: its tar has a header without a file")


def _name(member: tarfile.TarInfo, header: bytes, long_name: bytes) -> bytes:
    """A member's name as Go reads it: with the slash behind a directory's."""
    if (path := member.pax_headers.get("path")) is not None:
        return path.encode("utf-8", "surrogateescape")
    if long_name:
        return long_name
    name, _, _ = header[:100].partition(b"\0")
    prefix, _, _ = header[345:500].partition(b"\0")
    return b"/".join([prefix, name]) if prefix and header[257:263] == b"ustar\0" else name


def _header(member: tarfile.TarInfo) -> bytes:
    """The member's headers, readable for mke2fs."""
    member.mtime = int(member.mtime)
    if not (member.name + member.linkname).isascii():
        member.pax_headers = {"hdrcharset": "BINARY", **member.pax_headers}
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
