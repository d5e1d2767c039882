"""A zip of artifacts whose names a hostile build chose."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator

from vmrunner.services import artifact_archive
from vmrunner.store.build_artifacts import ArtifactEntry

MANY = 300


def entry(path: str) -> ArtifactEntry:
    return ArtifactEntry(path=path, size=0, mode=stat.S_IFREG | 0o644, mtime_ns=0)


#: Each begins with two bytes that are no UTF-8, so all are shown alike.
ALIKE = [bytes([0x80 + n // 100, 0x80 + n % 100]).decode("utf-8", "surrogateescape")
         for n in range(MANY)]  # fmt: skip


class Files:
    def ls(self) -> list[ArtifactEntry]:
        return [entry(path) for path in [*ALIKE, "��_1", "a"]]

    def read(self, _: ArtifactEntry) -> Iterator[bytes]:
        yield b"x"


class Looks(dict[str, int]):
    count = 0

    def __contains__(self, name: object) -> bool:
        self.count += 1
        return super().__contains__(name)


def test_names_that_look_alike_are_all_there() -> None:
    packed = io.BytesIO(b"".join(artifact_archive.zipped(Files())))
    names = zipfile.ZipFile(packed).namelist()
    assert len(set(names)) == len(names) == MANY + 2
    assert {"��", "��_1", "a"} <= set(names)


def test_no_name_is_looked_for_again_and_again() -> None:
    looks = Looks()
    for path in ALIKE:
        artifact_archive._member(entry(path), looks)
    assert looks.count < 3 * MANY
