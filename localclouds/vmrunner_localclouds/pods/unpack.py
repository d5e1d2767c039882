"""Layers of an image as one directory: `unpack.py DIRECTORY LAYER…`, the lowest first, as tars.

It goes into the directory before it unpacks the first: a link in a layer leads to nothing outside.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - nothing can be loaded once we are in the directory
import os
import shutil
import sys
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

_GONE: Final = ".wh."  # before the name of what a layer takes away
_OPAQUE: Final = ".wh..wh..opq"  # in a directory that hides all that lower layers have there


def main(directory: str, layers: Sequence[str]) -> None:
    files = [Path(layer).open("rb") for layer in layers]  # noqa: SIM115 - they end with us
    os.chroot(directory)
    os.chdir("/")
    os.umask(0)
    tarfile.pwd = tarfile.grp = None  # type: ignore[attr-defined]  # numbers, not the host's names
    for file in files:
        _layer(file)


def _layer(file: BinaryIO) -> None:
    with tarfile.open(fileobj=file, mode="r|*") as tar:
        for member in tar:
            path = Path(os.path.normpath("/" + member.name))
            if path.name == _OPAQUE:
                for entry in path.parent.iterdir():
                    _remove(entry)
            elif path.name.startswith(_GONE):
                _remove(path.with_name(path.name.removeprefix(_GONE)))
            else:
                if not member.isdir():
                    _remove(path)
                tar.extract(member, "/", numeric_owner=True, filter="fully_trusted")


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
