"""User-data for one instance: a dict, dumped. Never pasted text, so that no value can break out
of its place. What it holds is worth nothing beyond this VM: anything in the guest can read it."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import yaml

from vmrunner.errors import BadOrder
from vmrunner.lib import resources
from vmrunner.lib.cloudinit import stock_image

USER_DATA_LIMIT: Final = 16 * 1024  # bytes: EC2's, the smallest of all clouds


def user_data(
    *,
    instance: str,
    deadline: float,
    boot_ttl: float,
    authorized_key: str,
    host_private: str,
    host_public: str,
    platform: str,
    stock: bool = False,
) -> bytes:
    """`#cloud-config` for one VM, gzipped for a `stock` image: one that is not ours, in which the
    VM installs Docker and the supervisor at boot.

    `deadline`: epoch seconds at which the guest powers itself off; `boot_ttl`: the same in seconds
    from boot, for a guest whose clock is wrong. `authorized_key`: root's only key, one line.
    `host_private`, `host_public`: the ed25519 host key, OpenSSH text. `platform`: where it boots,
    which decides what `cloud-init/PLATFORM.yaml` adds. Raises BadOrder above 16 KiB."""
    document = _document(
        deadline=deadline,
        boot_ttl=boot_ttl,
        authorized_key=authorized_key,
        host_private=host_private,
        host_public=host_public,
    )
    document |= {"hostname": instance, **_template(platform)}
    if stock:
        early, rest = stock_image.modules()
        rest["runcmd"] += document.get("runcmd", [])  # what nftables, installed then, can do
        document = {"bootcmd": [*document.pop("bootcmd"), *early], **document, **rest}
    text = yaml.dump(document, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=4096)
    result = f"#cloud-config\n{text}".encode()
    if stock:
        result = gzip.compress(result, mtime=0)
    if len(result) > USER_DATA_LIMIT:
        raise BadOrder(f"user-data: {len(result)} bytes are more than {USER_DATA_LIMIT}")
    return result


def builder_data(*, deadline: float, boot_ttl: float) -> bytes:
    """`#cloud-config` for the builder of an image, which boots a vendor's: its own end, and nothing
    else. Times as in `user_data`."""
    text = yaml.dump({"bootcmd": [_timer(deadline, boot_ttl)]}, Dumper=_DUMPER, width=4096)
    return f"#cloud-config\n{text}".encode()


_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _document(
    *,
    deadline: float,
    boot_ttl: float,
    authorized_key: str,
    host_private: str,
    host_public: str,
) -> dict[str, Any]:
    return {
        # First: nothing that fails later may leave a VM without an end.
        "bootcmd": [_timer(deadline, boot_ttl)],
        **_template("user-data"),
        "ssh_keys": {
            "ed25519_private": host_private.strip() + "\n",
            "ed25519_public": host_public.strip(),
        },
        # lock_passwd: without PAM, sshd lets no locked account in, not even with a key.
        "users": [
            {"name": "root", "lock_passwd": False, "ssh_authorized_keys": [authorized_key.strip()]}
        ],
    }


@cache
def _template(name: str) -> Mapping[str, Any]:
    text = (resources.path("cloud-init") / f"{name}.yaml").read_bytes()
    document: dict[str, Any] = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader
    return document


def _timer(deadline: float, boot_ttl: float) -> list[str]:
    text = (resources.path("cloud-init") / "deadline.sh").read_text()
    script = stock_image.without_comments(text)
    return ["sh", "-c", script, "vmrunner-deadline", str(int(deadline)), str(math.ceil(boot_ttl))]
