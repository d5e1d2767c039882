"""Submit → first line of a build's output, through vmrunner and by hand, side by side.

By hand is what a person would write for the same image, machine and accelerator: start QEMU, wait
for the console's word that sshd listens, one `ssh … docker run … echo`. (QEMU's network delays
connections that came too early, so a loop of tries would flatter us.) Docker is cold on both sides,
and both boot. The two take turns in one run, so that whatever else the machine does hits both.
Goal: a ratio of at most 1.25.

    .venv/bin/python bench/cold_start.py [--pairs 5]
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.first_line import first_line
from vmrunner.lib import local_images
from vmrunner.lib.local_images import LocalImage
from vmrunner.providers.qemu import accel
from vmrunner.providers.qemu.command_line import ANNOUNCED

GOAL = 1.25
QEMU = "qemu-system-x86_64"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vmrunner"


def by_hand(place: Path, image: LocalImage, container: str, accelerator: str) -> float:
    """Seconds until the first line, with QEMU, ssh and a loop. Keys and seed are made before the
    clock starts: a script would keep them."""
    seed = place / "seed"
    seed.mkdir()
    for name in ("user", "host"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True
        )
    (seed / "meta-data").write_text("instance-id: by-hand\n")
    (seed / "user-data").write_text(user_data(place))
    port = free_port()
    host_key = (place / "host.pub").read_text()
    (place / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    ssh = [
        *("ssh", "-F", "none", "-i", str(place / "user"), "-p", str(port)),
        *("-o", f"UserKnownHostsFile={place / 'known_hosts'}", "-o", "StrictHostKeyChecking=yes"),
        *("-o", "ConnectTimeout=20", "-o", "LogLevel=ERROR", "root@127.0.0.1"),
        *("docker", "run", "--rm", "--network", "none", container, "echo", "hello"),
    ]
    began = time.monotonic()
    subprocess.run(
        [
            *("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2"),
            *("-b", image.disk, place / "disk.qcow2", "16G"),
        ],
        check=True,
    )
    with (place / "qemu.log").open("wb") as log:
        qemu = subprocess.Popen(
            qemu_command(place, image, accelerator, port), stdout=log, stderr=log, stdin=log
        )
    try:
        while ANNOUNCED not in (place / "qemu.log").read_bytes():
            if time.monotonic() - began > 300:
                raise SystemExit("by hand: no word on the console after 300 s")
            time.sleep(0.05)
        done = subprocess.run(ssh, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        if done.stdout != b"hello\n":
            raise SystemExit(f"by hand: {done.stderr.decode()}")
        return time.monotonic() - began
    finally:
        qemu.kill()
        qemu.wait()


def user_data(place: Path) -> str:
    """Plants both keys, as a person would."""
    private = (place / "host").read_text().replace("\n", "\n    ").rstrip()
    return (
        "#cloud-config\n"
        f"ssh_authorized_keys:\n  - {(place / 'user.pub').read_text().strip()}\n"
        f"ssh_keys:\n  ed25519_private: |\n    {private}\n"
        f"  ed25519_public: {(place / 'host.pub').read_text().strip()}\n"
        "cloud_config_modules: []\ncloud_final_modules: []\n"
        "users:\n  - name: root\n    lock_passwd: false\n    ssh_authorized_keys:\n"
        f"      - {(place / 'user.pub').read_text().strip()}\n"
    )


def qemu_command(place: Path, image: LocalImage, accelerator: str, port: int) -> list[str]:
    cpu = "host" if accelerator == "kvm" else "max,la57=off"
    accel_words = "kvm" if accelerator == "kvm" else "tcg,thread=multi,tb-size=512"
    return [
        *(QEMU, "-nodefaults", "-display", "none", "-serial", "stdio"),
        *(
            "-machine",
            "q35,vmport=off,hpet=off",
            "-accel",
            accel_words,
            "-cpu",
            cpu,
            "-smp",
            "2",
            "-m",
            "2048M",
        ),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", f"{image.cmdline} ds=nocloud"),
        *("-drive", f"file={place / 'disk.qcow2'},if=virtio,cache=unsafe"),
        *(
            "-drive",
            f"file.driver=vvfat,file.dir={place / 'seed'},file.label=CIDATA,"
            "format=raw,if=virtio,readonly=on",
        ),
        *("-netdev", f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"),
        *("-device", "virtio-net-pci,netdev=n,romfile=", "-device", "virtio-rng-pci"),
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=5)
    pairs: int = parser.parse_args().pairs
    image = local_images.resolve(CACHE)
    container = image.containers[0]
    accelerator = accel.choose("auto", qemu=QEMU, kernel=image.kernel, cache_dir=CACHE).name
    ours: list[float] = []
    theirs: list[float] = []
    for n in range(pairs):
        place = Path(tempfile.mkdtemp(prefix="vmrunner-bench-"))
        try:
            for turn in ("hand", "ours") if n % 2 else ("ours", "hand"):
                if turn == "ours":
                    ours.append(first_line(place, "--container", container, templates=False))
                else:
                    theirs.append(by_hand(place, image, container, accelerator))
        finally:
            shutil.rmtree(place)
        print(f"pair {n + 1}: vmrunner {ours[-1]:.1f} s, by hand {theirs[-1]:.1f} s", flush=True)
    ratio = statistics.median(ours) / statistics.median(theirs)
    table = Table(title=f"submit → first line, {accelerator}, image {image.hash[:12]}")
    for column in ("", "median s", "best s", "worst s"):
        table.add_column(column, justify="right" if column else "left")
    for name, values in (("vmrunner run", ours), ("qemu + ssh docker run", theirs)):
        table.add_row(name, *(f"{f(values):.1f}" for f in (statistics.median, min, max)))
    table.add_row("ratio of medians", f"{ratio:.2f}", "", f"goal ≤ {GOAL}")
    Console().print(table)
    return 0 if ratio <= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
