"""What Packer does in a builder, done in a root of mmdebstrap's that is dressed up as a cloud's
base: the same scripts in the same order. No systemd runs there, and no Docker."""

from __future__ import annotations

import io
import json
import os
import shlex
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.packer import PACKER, RUN
from vmrunner.images.local.programs import ChildPrograms, environment
from vmrunner.images.recipe import Inputs

HASH: Final = "abcdef0123456789abcd"
WORK: Final = "/opt/vmrunner-build"
_SEEN: Final = "/usr/share/vmrunner-seen"

#: What a vendor's base has and an image of ours must not, as far as it can be had in a root.
_BASE: Final = (
    "cloud-init,openssh-server,python3,sudo,systemd-resolved,systemd-sysv,unattended-upgrades"
)
PACKAGES: Final = {
    "trixie": _BASE,
    "noble": f"{_BASE},ec2-instance-connect,modemmanager,multipath-tools,needrestart,snapd"
    ",ubuntu-pro-client",
}

_DRESS: Final = f"""
useradd -m -s /bin/bash admin
mkdir -p /home/admin/.ssh /root/.ssh {WORK} /var/lib/cloud/instances/i-1
echo key | tee /home/admin/.ssh/authorized_keys >/root/.ssh/authorized_keys
echo 'admin ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/90-cloud-init-users
mkdir -p /etc/netplan /var/lib/waagent
echo 'a password' | tee /etc/waagent.conf >/var/lib/waagent/ovf-env.xml
echo 'network: {{version: 2}}' >/etc/netplan/50-cloud-init.yaml
echo 'PermitRootLogin yes' >/etc/ssh/sshd_config.d/00-vmrunner-builder.conf
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
echo seen | tee /var/log/cloud-init.log /var/log/btmp /var/log/lastlog >/var/log/wtmp
echo left >/tmp/script_1.sh
mv /srv/stage {WORK}/stage
cp /srv/packer/provision/containers.py {WORK}/
chown -R admin {WORK}
chmod -R a+rX /srv
"""

#: As Packer does it: uploaded by the user that it logged in as, run through sudo, removed by that
#: user, but for the last.
_STEP: Final = f"""
step() {{ # SCRIPT
    echo "I: $1"
    runuser -u admin -- cp "/srv/packer/$1" {WORK}/script_1.sh
    runuser -u admin -- sudo -n env $vars sh {WORK}/script_1.sh
    [ "$1" = provision/99-leave.sh ] || runuser -u admin -- rm -f {WORK}/script_1.sh
}}
"""

#: Docker does not run there: what it would be given is noted instead. Nor does systemd: nothing is
#: started or stopped, which not every systemctl sees by itself.
_STAND_INS: Final = f"""
cat >/usr/local/bin/systemctl <<'END'
#!/bin/sh
case $1 in start | stop | restart) ;; *) exec /usr/bin/systemctl "$@" ;; esac
END
cat >/usr/local/bin/docker <<'END'
#!/bin/sh
echo "$*" >>{_SEEN}-docker
[ "$1" != import ] || tar -t >{_SEEN}-docker.tar
cp /etc/docker/daemon.json {_SEEN}-docker.json
END
chmod 0755 /usr/local/bin/docker /usr/local/bin/systemctl
"""

#: Both checks of the provisioning can fail: each is shown something wrong.
_WRONG: Final = f"""
cp {WORK}/state.noted /srv/noted
echo changed >>/etc/issue
if env $vars sh /srv/packer/provision/40-unchanged.sh; then echo "a change was not seen"; exit 1; fi
sed -i '$d' /etc/issue
mv /srv/noted {WORK}/state.noted
"""
_LEFT: Final = """
echo left >/var/tmp/left
if env $vars sh /srv/packer/provision/99-leave.sh; then echo "a leftover was not seen"; exit 1; fi
rm -r /var/tmp/left /srv/packer
"""


@dataclass(frozen=True)
class Provisioned:
    """What the root is like at the end."""

    log: str
    files: dict[str, str]  # path without its slash -> type and mode, such as "f 644"
    sizes: dict[str, int]
    packages: frozenset[str]
    users: frozenset[str]
    text: dict[str, str]  # the content of the files that were asked for


def provision(
    suite: str,
    tmp: Path,
    *,
    platform: str,
    read: list[str],
    options: list[str] | None = None,
    containers: list[dict[str, Any]] | None = None,
    mirror: str = "",
) -> Provisioned:
    """Raises ImageError with the end of the output when anything fails."""
    bundle, out = tmp / "bundle.tar", tmp / "out"
    out.mkdir()
    _bundle(bundle, stage(containers), _run(platform, mirror), _look(read))

    argv = ["mmdebstrap", "--variant=minbase", "--format=null"]
    argv += ["--mode=" + ("root" if os.geteuid() == 0 else "unshare")]
    argv += ["--dpkgopt=force-unsafe-io"]
    argv += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
    argv += [f"--include={PACKAGES[suite]}", *(options or [])]
    argv += [
        f"--customize-hook=tar-in {shlex.quote(str(bundle))} /",
        '--customize-hook=chroot "$1" sh -eu /srv/run.sh',
        '--customize-hook=chroot "$1" sh -eu /srv/look.sh',
        f"--customize-hook=sync-out {_SEEN} {shlex.quote(str(out))}",
        suite,
        "-",
    ]
    log = ChildPrograms().run(
        argv, what="provisioning", timeout=900, env=environment(DEBIAN_FRONTEND="noninteractive")
    )
    rows = [line.split("\t") for line in (out / "files").read_text().splitlines()]
    return Provisioned(
        log=log,
        files={path: f"{kind} {mode}" for path, kind, mode, _ in rows},
        sizes={path: int(size) for path, _, _, size in rows},
        packages=frozenset((out / "packages").read_text().split()),
        users=frozenset((out / "users").read_text().split()),
        text={name: (out / "text" / name).read_text() for name in read},
    )


def stage(containers: list[dict[str, Any]] | None = None) -> dict[str, bytes]:
    """The directory that vmrunner hands to Packer."""
    inputs = Inputs.read()
    return {
        **{f"supervisor/{name}": text for name, text in inputs.supervisor.items()},
        "packages.txt": "\n".join([*inputs.base_packages, "jq"]).encode() + b"\n",
        "image.json": json.dumps({"hash": HASH}).encode(),
        "containers.json": json.dumps(containers or []).encode(),
    }


def _run(platform: str, mirror: str) -> str:
    """Every script of RUN in its order, and what shows that the checks among them can fail."""
    scripts = [f"scripts/{path.name}" for path in sorted((PACKER / "scripts").glob("*.sh"))]
    values = {
        "VMRUNNER_PLATFORM": platform,
        "VMRUNNER_WORK": WORK,
        "VMRUNNER_STAGE": f"{WORK}/stage",
        "VMRUNNER_MAX_RUN_SECONDS": "3600",
        "VMRUNNER_RECIPE_HASH": HASH,
        "VMRUNNER_REGISTRY_MIRROR": mirror,
    }
    lines = [f"vars='{' '.join(f'{k}={v}' for k, v in values.items())}'", _STEP, _STAND_INS, _DRESS]
    for number, names in enumerate(RUN):
        for name in names:
            lines += [f"step {script}" for script in (scripts if name == "SCRIPTS" else [name])]
        if number == RUN.index(names) + 1:  # the second pass of the same
            lines.append(_WRONG)
    return "\n".join([*lines, _LEFT])


def _look(read: list[str]) -> str:
    return "\n".join(
        [
            f"mkdir -p {_SEEN}/text",
            f"find / -xdev -printf '%P\\t%y\\t%m\\t%s\\n' >{_SEEN}/files",
            f"dpkg-query -W -f '${{Package}}\\n' >{_SEEN}/packages",
            f"cut -d: -f1 /etc/passwd >{_SEEN}/users",
            *(f"mkdir -p {_SEEN}/text/$(dirname {n}); cp /{n} {_SEEN}/text/{n}" for n in read),
        ]
    )


def _bundle(to: Path, staged: dict[str, bytes], run: str, look: str) -> None:
    files = {
        **{
            f"srv/packer/{path.relative_to(PACKER)}": path.read_bytes()
            for path in sorted(PACKER.rglob("*"))
            if path.is_file()
        },
        **{f"srv/stage/{name}": content for name, content in staged.items()},
        "srv/run.sh": run.encode(),
        "srv/look.sh": look.encode(),
    }
    with tarfile.open(to, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
