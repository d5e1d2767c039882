"""The service under a real systemd, which a VM of ours has: `docs/service.md` without a proxy."""

from __future__ import annotations

import tarfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.vm.home import Home, text, wait_until

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
CONFIG = """
[server]
listen = "127.0.0.1:8470"
[providers.cloud]
kind = "fake"
"""
INSTALL = r"""
set -eu
python3 -m venv --without-pip /opt/vmrunner
tar -xf /work/site.tar -C /opt/vmrunner/lib/python3.*/site-packages
cat >/opt/vmrunner/bin/vmrunner <<'PROGRAM'
#!/opt/vmrunner/bin/python
import sys
from vmrunner.cli import main
sys.exit(main())
PROGRAM
chmod 755 /opt/vmrunner/bin/vmrunner
useradd --system --home-dir /var/lib/vmrunner vmrunner
install -d -o vmrunner -g vmrunner -m 700 /var/lib/vmrunner /etc/vmrunner
install -o vmrunner -m 600 /work/config.toml /etc/vmrunner/config.toml
cp /work/vmrunner.service /etc/systemd/system/
systemctl daemon-reload
systemctl enable --now vmrunner
"""
#: What a person would ask, each until it is true or some minutes are over.
USE = r"""
set -u
ctl() {
    runuser -u vmrunner -- env VMRUNNER_CONFIG=/etc/vmrunner/config.toml XDG_DATA_HOME=/var/lib \
        /opt/vmrunner/bin/vmrunner "$@"
}
until_true() {
    for _ in $(seq 150); do "$@" >/dev/null 2>&1 && return 0; sleep 1; done
    echo "never: $*"
    journalctl -u vmrunner -o cat | tail -5
    exit
}
well() { python3 -c 'import urllib.request as u; u.urlopen("http://127.0.0.1:8470/healthz")'; }
main_pid() { systemctl show -p MainPID --value vmrunner; }
until_true well
token=$(ctl token create me --scope admin,read,submit) || echo "no token"
over_http() {
    VMRUNNER_SERVER=http://127.0.0.1:8470 VMRUNNER_TOKEN=$token HOME=/nonexistent \
        /opt/vmrunner/bin/vmrunner "$@"
}
build=$(over_http run -d --provider cloud -- true) || echo "no build"
began() { over_http show "$build" -o json | grep -q '"provisioning"'; }
until_true began
before=$(main_pid)
systemctl reload vmrunner || echo "no reload"
read_again() { journalctl -u vmrunner | grep -q 'configuration was read again'; }
until_true read_again
kill -9 "$before"
replaced() { [ "$(main_pid)" != "$before" ] && [ "$(main_pid)" != 0 ]; }
other() { replaced && well; }
until_true other
systemctl stop vmrunner
echo "stopped $(systemctl show -p Result --value vmrunner)"

mkdir /etc/systemd/system/vmrunner.service.d
cp /work/vmrunner-local.conf /etc/systemd/system/vmrunner.service.d/local.conf
systemctl daemon-reload
systemctl start vmrunner
# A stand-in for a VM of this host: a process that the engine left.
sleep 1000 >/dev/null 2>&1 &
vm=$!
echo $vm >/sys/fs/cgroup/system.slice/vmrunner.service/main/cgroup.procs
runuser -u vmrunner -- /opt/vmrunner/bin/python -c '
from vmrunner.providers.qemu.cgroup import place
print("groups in", place(own="0::/system.slice/vmrunner.service/main"))'
before=$(main_pid)
kill -9 "$before"
until_true replaced
kill -0 $vm && echo "a VM outlives kill -9"
systemctl stop vmrunner
kill -0 $vm && echo "a VM outlives a stop"
journalctl -u vmrunner -o cat | grep -i 'traceback\|not permitted\|permission' || true
echo "security $(systemd-analyze security vmrunner --no-pager | tail -1)"
"""


def closure(name: str) -> set[str]:
    """All that an installation of this package has."""
    found: set[str] = set()
    requirements = [Requirement(name)]
    while requirements:
        wanted = requirements.pop()
        key = f"{wanted.name.lower()}[{','.join(sorted(wanted.extras))}]"
        if key in found:
            continue
        found.add(key)
        for line in metadata.requires(wanted.name) or ():
            more = Requirement(line)
            extras = ({"extra": extra} for extra in (*wanted.extras, ""))
            if more.marker is None or any(more.marker.evaluate(extra) for extra in extras):
                requirements.append(more)
    return {key.partition("[")[0] for key in found}


def pack(place: Path) -> None:
    """Write what `pip install '.[server]'` would put there."""
    with tarfile.open(place, "w") as tar:
        tar.add(ROOT / "vmrunner", "vmrunner")
        for name in closure("vmrunner[server]"):
            here = metadata.distribution(name)
            for file in here.files or ():
                at = Path(str(here.locate_file(file)))
                if ".." not in file.parts and at.is_file() and "__pycache__" not in file.parts:
                    tar.add(at, str(file))


def test_the_unit_runs_under_systemd(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    source = home.root / "cwd/source"
    source.mkdir()
    pack(source / "site.tar")
    (source / "config.toml").write_text(CONFIG)
    for name in ("vmrunner.service", "vmrunner-local.conf"):
        (source / name).write_bytes((ROOT / "deploy/systemd" / name).read_bytes())
    try:
        words = ("run", "-d", "--network", "none", "--source", "source", "--", "sleep", "1200")
        build = text(home.run(*words).stdout).strip()
        wait_until(
            lambda: home.builds()[0]["state"] == "running", seconds=300, what="the VM's first step"
        )

        def root(script: str) -> str:
            done = home.run("ssh", build, "--", "sh", "-c", script, timeout=900)
            assert done.returncode == 0, text(done.stdout + done.stderr)
            return text(done.stdout)

        root(INSTALL)
        lines = root(USE).splitlines()
        assert lines[:-1] == [
            "stopped success",
            "groups in /sys/fs/cgroup/system.slice/vmrunner.service",
            "a VM outlives kill -9",
            "a VM outlives a stop",
        ], lines
        assert "OK" in lines[-1]
    finally:
        home.run("cancel", *(build["id"] for build in home.builds()))
        wait_until(lambda: not home.open_vms(), seconds=60, what="the VM's end")
        wait_until(lambda: not home.processes(), seconds=60, what="the end of the engine")
