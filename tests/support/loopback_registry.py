"""A real registry on loopback (Debian's docker-registry), and images made without Docker."""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

_START: Final = 60.0  # seconds
LOGIN: Final = "somebody:geheim"
_USERS: Final = "somebody:$2y$05$abcdefghijklmnopqrstuuVWu8RjbNovPZWAMRdd7iqaaG0mI53Uu\n"
#: What a shell image has, of this machine's own.
SHELL: Final = (
    "sh cat chmod cp dd echo env false head id kill ln ls mkdir mkfifo mv ps pwd readlink rm seq "
    "sleep sort stat tail tar test timeout touch tr true wc yes"
)


class LoopbackRegistry:
    """A context manager. `address`: its host and port. `locked`: it asks for `LOGIN`."""

    def __init__(self, home: Path, *, locked: bool = False) -> None:
        for program in ("docker-registry", "skopeo"):
            assert shutil.which(program), f"missing {program}: apt-get install {program}"
        self._home = home
        self._locked = locked
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"

    def __enter__(self) -> LoopbackRegistry:
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(self._home / "data")}},
            "http": {"addr": self.address},
        }
        if self._locked:
            (self._home / "users").write_text(_USERS)
            users = {"realm": "here", "path": str(self._home / "users")}
            config["auth"] = {"htpasswd": users}
        (self._home / "config.yml").write_text(json.dumps(config))
        words = ["docker-registry", "serve", str(self._home / "config.yml")]
        with (self._home / "log").open("wb") as log:
            self._server = subprocess.Popen(words, stdout=log, stderr=log)
        end = time.monotonic() + _START
        while not self._answers():
            assert time.monotonic() < end, (self._home / "log").read_text()
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.terminate()
        self._server.wait(20)

    def _answers(self) -> bool:
        host, _, port = self.address.partition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def push(self, name: str, archive: Path) -> str:
        """Push a docker archive; the image's name by its digest."""
        digest = self._home / "digest"
        words = ["skopeo", "copy", "--dest-tls-verify=false", f"--digestfile={digest}"]
        words += [f"--dest-creds={LOGIN}"] if self._locked else []
        subprocess.run(
            [*words, f"docker-archive:{archive}", f"docker://{self.address}/{name}"],
            check=True,
            capture_output=True,
        )
        return f"{self.address}/{name.partition(':')[0]}@{digest.read_text().strip()}"


def archive(to: Path, layers: Sequence[bytes], **config: Any) -> Path:
    """An image of these layers, as `docker save` would write it."""
    digests = [f"sha256:{sha256(layer).hexdigest()}" for layer in layers]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": digests},
    }
    names = [f"{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": ["made:1"], "Layers": names}]
    files = dict(zip(names, layers, strict=True))
    files["config.json"] = json.dumps(document).encode()
    files["manifest.json"] = json.dumps(manifest).encode()
    to.write_bytes(packed(files))
    return to


def packed(files: Mapping[str, bytes]) -> bytes:
    """A tar of these files, each of which may be run."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def programs(names: Sequence[str], modules: Sequence[Path] = ()) -> bytes:
    """A tar of this machine's programs, with the libraries that they load: a root file system in
    which they run. `modules`: what they load besides, of which the libraries alone are taken."""
    files: dict[str, Path] = {}
    for name in (*names, *map(str, modules)):
        path = shutil.which(name) or name
        if name in names:
            files[f"bin/{Path(name).name}"] = Path(path).resolve()
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        for word in listed.split():
            if word.startswith("/"):
                files[word.lstrip("/")] = Path(word).resolve()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory, mode in (("etc", 0o755), ("proc", 0o755), ("tmp", 0o1777), ("root", 0o700)):
            member = tarfile.TarInfo(directory)
            member.type, member.mode = tarfile.DIRTYPE, mode
            tar.addfile(member)
        for inside, path in sorted(files.items()):
            tar.add(path, arcname=inside)
    return buffer.getvalue()
