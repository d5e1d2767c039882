"""A trial of the unit image: it is started here, in namespaces of its own, as a system would."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from vmrunner.errors import ImageError
from vmrunner.images import oci_layout
from vmrunner.images.local.programs import ChildPrograms, environment
from vmrunner.images.unit_image import UnitImage
from vmrunner.lib import unit_recipe
from vmrunner.model import Finding, Level
from vmrunner.session.ssh import keys

_SECONDS: Final = 60.0
_FIX: Final = "vmrunner image build --unit --fresh"
_TRIAL: Final = """
supervisor=/usr/lib/vmrunner/supervisor
$supervisor lay
for name in driver.sh control answers log alive wishes; do test -e /vmrunner/$name; done
$supervisor beside &
until $supervisor ready; do sleep 0.2; done
mkdir -p /run/sshd
/usr/sbin/sshd -t -f /usr/lib/vmrunner/guest/unit_sshd.conf
echo "recipe $($supervisor recipe)"
echo "version $(/usr/sbin/sshd -V 2>&1)"
"""


def verify(image: UnitImage) -> list[Finding]:
    """Verify the image and return one finding a check: its bytes are those that its digest names,
    then it is started."""
    return [*_bytes(image), *_start(image)]


def _bytes(image: UnitImage) -> Iterator[Finding]:
    for path in sorted((image.directory / "blobs/sha256").iterdir()):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != path.name:
                yield _bad("bytes", f"{path} is damaged")
                return
    yield _good("bytes", f"{image.digest}: each file is what its name says")


def _start(image: UnitImage) -> Iterator[Finding]:
    with TemporaryDirectory(prefix="vmrunner-unit-") as directory:
        root = Path(directory) / "root"
        root.mkdir()
        isolated = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--net"]
        if os.geteuid() != 0:
            isolated += ["--map-root-user", "--map-auto"]
        try:
            _unpack(image, root, isolated)
            lines = _try(root, isolated).splitlines()
        except (ImageError, subprocess.TimeoutExpired) as error:
            yield _bad("start", str(error)[-400:])
            return
        finally:
            _remove(root, isolated)
    found = dict(line.partition(" ")[::2] for line in lines)
    if found.get("recipe") == unit_recipe.current():
        yield _good("recipe", f"{found['recipe']}: this vmrunner's")
    else:
        yield _bad("recipe", f"recipe {found.get('recipe')!r} is not this vmrunner's")
    yield _good("start", f"its supervisor answers; {found.get('version', '')[:60]}")


def _good(check: str, message: str) -> Finding:
    return Finding(check=check, level=Level.OK, message=message)


def _bad(check: str, message: str) -> Finding:
    return Finding(check=check, level=Level.ERROR, message=message, fix=_FIX)


def _unpack(image: UnitImage, root: Path, isolated: list[str]) -> None:
    words = ["tar", "--extract", "--gzip", "--numeric-owner", f"--directory={root}"]
    words.append(f"--file={oci_layout.layer(image.directory)}")
    ChildPrograms().run([*isolated, "--", *words], what="unpacking", timeout=300)


def _try(root: Path, isolated: list[str]) -> str:
    """The trial's output. Raises ImageError with what went wrong."""
    pair = keys.generate()
    files = {
        "authorized_keys": f"{pair.public}\n",
        "host_key": pair.private,
        "deadline": f"{time.time() + 3600:.0f}\n",
    }
    script = [f"root={shlex.quote(str(root))}", "set -e", "cd $root"]
    script += ["mount -t proc proc proc; mount -t tmpfs dev dev; mknod -m 666 dev/null c 1 3 || {"]
    script += [": >dev/null; mount --bind /dev/null dev/null; }", "umask 077"]
    script += [
        f"printf %s {shlex.quote(text)} >run/identity/{name}" for name, text in files.items()
    ]
    script += ["umask 022", f"exec chroot . /bin/sh -ec {shlex.quote(_TRIAL)}"]
    done = subprocess.run(
        [*isolated, "--", "sh", "-c", "\n".join(script)],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise ImageError(f"starting it: {done.stderr.strip()[-300:] or done.returncode}")
    return done.stdout


def _remove(root: Path, isolated: list[str]) -> None:
    words = ["rm", "-rf", "--one-file-system", "--", str(root)]
    subprocess.run([*isolated, "--", *words], check=False, timeout=300)
