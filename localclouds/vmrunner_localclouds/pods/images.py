"""Container images from registries on loopback, unpacked once for each digest."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_LOOPBACK: Final = ("127.", "localhost:", "[::1]:")
_DOCKER_HUB: Final = "docker.io"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NAME: Final = re.compile(r"[a-z0-9]+([._/-]+[a-z0-9]+)*(:[\w.-]{1,128})?(@sha256:[0-9a-f]{64})?")
_TIMEOUT: Final = 300  # seconds


class ImageError(Exception):
    """The image cannot be had. `reason` is Kubernetes': `ErrImagePull`, `InvalidImageName`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Image:
    """An image that is here."""

    digest: str
    root: Path
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    directory: str = "/"
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


class Images:
    """The images below a directory."""

    def __init__(self, directory: Path, registries: Mapping[str, str]) -> None:
        """`registries`: a registry's name → the address on loopback that stands for it."""
        self._directory = directory
        self._registries = registries
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._digests: dict[str, str] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, *, always: bool = False, login: bytes = b"") -> Image:
        """Pull it unless it is here. `always`: ask the registry what a tag stands for now.
        `login`: a `.dockerconfigjson`. Raises ImageError."""
        location = self._location(name)
        with self._lock:
            digest = None if always else self._digests.get(name)
        if digest is None:
            digest = location.partition("@")[2] or self._digest(location, login)
        with self._lock:
            lock = self._locks.setdefault(digest, threading.Lock())
        with lock:
            image = self._unpacked(location, digest, login)
        with self._lock:
            self._digests[name] = digest
        return image

    def forget(self, name: str) -> None:
        """Ask the registry at the next pull of a tag, as a node does that never had it."""
        with self._lock:
            self._digests.pop(name, None)

    def _location(self, name: str) -> str:
        """The image's place in a registry that may be asked."""
        host, slash, path = name.partition("/")
        if not slash or not ("." in host or ":" in host or host == "localhost"):
            host, path = _DOCKER_HUB, name if slash else f"library/{name}"
        host = self._registries.get(host, host)
        if not _NAME.fullmatch(path):
            raise ImageError("InvalidImageName", f"{name!r} is no name of an image")
        if not host.startswith(_LOOPBACK):
            raise ImageError("ErrImagePull", f"{name}: {host} is not on loopback and has no mirror")
        if "@" in path:
            path, _, digest = path.partition("@")
            return f"{host}/{path.partition(':')[0]}@{digest}"
        return f"{host}/{path}" if ":" in path else f"{host}/{path}:latest"

    def _digest(self, location: str, login: bytes) -> str:
        words = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}"]
        return self._skopeo([*words, f"docker://{location}"], login).strip()

    def _skopeo(self, words: list[str], login: bytes) -> str:
        file = self._directory / f"login-{threading.get_ident()}"
        if login:
            file.touch(0o600)
            file.write_bytes(login)
            words = [*words[:1], f"--authfile={file}", *words[1:]]
        try:
            done = subprocess.run(
                ["skopeo", *words], capture_output=True, text=True, timeout=_TIMEOUT, check=False
            )
        finally:
            file.unlink(missing_ok=True)
        if done.returncode:
            raise ImageError("ErrImagePull", done.stderr.strip()[-1000:])
        return done.stdout

    def _unpacked(self, location: str, digest: str, login: bytes) -> Image:
        directory = self._directory / digest.replace(":", "-")
        if not (directory / "config.json").exists():
            part = directory.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            (part / "root").mkdir(parents=True)
            copy = ["copy", "--src-tls-verify=false", "--dest-decompress"]
            source = f"docker://{location.partition('@')[0].rpartition(':')[0]}@{digest}"
            if "@" in location:
                source = f"docker://{location}"
            self._skopeo([*copy, source, f"dir:{part}/pulled"], login)
            _unpack(part)
            part.replace(directory)
        config = json.loads((directory / "config.json").read_text()).get("config") or {}
        return Image(
            digest=digest,
            root=directory / "root",
            entrypoint=tuple(config.get("Entrypoint") or ()),
            command=tuple(config.get("Cmd") or ()),
            env=tuple(config.get("Env") or (f"PATH={_PATH}",)),
            directory=config.get("WorkingDir") or "/",
            user=config.get("User") or "",
            labels=config.get("Labels") or {},
        )


def _unpack(part: Path) -> None:
    pulled = part / "pulled"
    manifest = json.loads((pulled / "manifest.json").read_text())
    files = [str(pulled / layer["digest"].partition(":")[2]) for layer in manifest["layers"]]
    program = str(Path(__file__).with_name("unpack.py"))
    done = subprocess.run(
        [sys.executable, "-P", "-S", program, str(part / "root"), *files],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ImageError("ErrImagePull", f"unpacking: {done.stderr.strip()[-500:]}")
    shutil.copyfile(pulled / manifest["config"]["digest"].partition(":")[2], part / "config.json")
    shutil.rmtree(pulled)
