"""The supervisor as one executable file: a zip archive that python3 runs. Pure; the same sources
give the same bytes, so an image's hash covers them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Final

PATH: Final = "/usr/lib/vmrunner/supervisor"  # where images have it, mode 0755

_MAIN: Final = "import sys\nfrom guest.supervisor import main\nsys.exit(main(sys.argv[1:]))\n"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def supervisor() -> bytes:
    """About 40 KB. Stored, not compressed: the VM need not import zlib."""
    sources = sorted((Path(__file__).parent / "guest").glob("*.*"))
    files = {f"guest/{path.name}": path.read_bytes() for path in sources if path.is_file()}
    buffer = io.BytesIO(b"#!/usr/bin/python3 -S\n")
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, data in {"__main__.py": _MAIN.encode(), **files}.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return buffer.getvalue()
