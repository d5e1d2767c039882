"""Recipe of the unit image: what is in it, and the hash that says so, in its label and in it.

Of one version of vmrunner: an image by another recipe has a supervisor that is not ours.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from vmrunner.lib import resources

LABEL: Final = "vmrunner.recipe"
LIBRARY: Final = "usr/lib/vmrunner"
#: The file in the image that has its hash: `supervisor recipe` prints it.
HASH: Final = f"{LIBRARY}/recipe"
SUITE: Final = "trixie"
PACKAGES: Final = ("openssh-server", "python3")
VERSION: Final = 1  # raised when the builder makes something else of the same files
_OF_VMS: Final = ("launcher.py", "metadata.nft")


@cache
def files() -> Mapping[str, bytes]:
    """The image's own files, by their paths in it. Asked once: a process that an upgrade passed by
    goes on with its own."""
    found = {
        f"{LIBRARY}/guest/{path.name}": path.read_bytes()
        for path in sorted(resources.GUEST.glob("[!.]*.*"))
        if path.name not in _OF_VMS
    }
    found[f"{LIBRARY}/supervisor"] = found.pop(f"{LIBRARY}/guest/unit_launcher.py")
    found[f"{LIBRARY}/sshd"] = found.pop(f"{LIBRARY}/guest/unit_sshd.sh")
    return found


@cache
def byte_code() -> Mapping[str, bytes]:
    """The byte code of these modules for the Python that runs this, by its paths in the image: else
    each unit compiles them while its build waits."""
    import py_compile
    from tempfile import TemporaryDirectory

    found = {}
    with TemporaryDirectory() as directory:
        source, compiled = Path(directory) / "source", Path(directory) / "compiled"
        for name, data in files().items():
            if not name.startswith(f"{LIBRARY}/guest/") or not name.endswith(".py"):
                continue
            source.write_bytes(data)
            py_compile.compile(
                str(source),
                cfile=str(compiled),
                dfile=f"/{name}",
                doraise=True,
                optimize=0,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
            path = Path(name)
            cached = path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"
            found[str(cached)] = compiled.read_bytes()
    return found


@cache
def current() -> str:
    """The hash that the unit image has as this version of vmrunner makes it."""
    parts = {name: hashlib.sha256(data).hexdigest() for name, data in files().items()}
    text = json.dumps([VERSION, SUITE, PACKAGES, parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def root() -> str:
    """The hash of all but our own files."""
    return hashlib.sha256(json.dumps([VERSION, SUITE, PACKAGES]).encode()).hexdigest()[:20]
