"""User-data: a dict, dumped; nothing that a value holds can leave its place."""

from __future__ import annotations

import ast
import gzip
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from vmrunner.errors import BadOrder
from vmrunner.lib import resources
from vmrunner.lib.cloudinit import stock_image, user_data
from vmrunner.session.ssh import keys


def made(**other: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "instance": "vm-01",
        "deadline": 1_800_000_000.9,
        "boot_ttl": 2700.2,
        "authorized_key": "ssh-ed25519 AAAA user\n",
        "host_private": "-----BEGIN\nsecret: [x]\n-----END\n",
        "host_public": "ssh-ed25519 BBBB",
        "platform": "local",
        **other,
    }
    text = user_data.user_data(**values)
    assert text.startswith(b"#cloud-config\n")
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def test_the_timer_is_armed_before_anything_else() -> None:
    document = made()
    assert next(iter(document)) == "bootcmd"
    program, flag, script, _, deadline, ttl = document["bootcmd"][0]
    assert (program, flag, deadline, ttl) == ("sh", "-c", "1800000000", "2701")
    assert script.count("DefaultDependencies=no") >= 2


def test_keys_come_through_as_they_are() -> None:
    document = made()
    assert document["ssh_keys"] == {
        "ed25519_private": "-----BEGIN\nsecret: [x]\n-----END\n",
        "ed25519_public": "ssh-ed25519 BBBB",
    }
    (root,) = document["users"]
    assert root["ssh_authorized_keys"] == ["ssh-ed25519 AAAA user"]
    assert root["lock_passwd"] is False


def test_no_value_can_add_a_command() -> None:
    evil = 'vm"\nruncmd:\n  - reboot\n'
    document = made(instance=evil, authorized_key=evil)
    assert "runcmd" not in document
    assert document["hostname"] == evil


def test_only_a_local_disk_has_no_partition_to_grow() -> None:
    assert made()["growpart"] == {"mode": "off"}
    assert "growpart" not in made(platform="ec2")


@pytest.mark.parametrize("platform", ["local", "ec2", "gce", "azure"])
def test_each_thing_comes_before_what_needs_it(platform: str) -> None:
    """The timer, the host key, no metadata service; then sshd answers. In a cloud whose metadata
    service cannot be reached from outside, this is what keeps a build from it."""
    cfg = (resources.path("packer") / "scripts" / "30-cloud-init.sh").read_text()
    config = yaml.safe_load(cfg.split("95-vmrunner.cfg <<'CONF'\n")[1].split("\nCONF\n")[0])
    order = config["cloud_init_modules"]
    assert order.index("bootcmd") < order.index("ssh") < order.index("runcmd")
    assert order[-2:] == ["runcmd", "scripts_user"], "what runs the commands"
    document = made(platform=platform)
    assert document["cloud_config_modules"] == document["cloud_final_modules"] == []
    block = [["nft", "-f", "/usr/lib/vmrunner/guest/metadata.nft"]]
    assert document.get("runcmd") == (None if platform == "local" else block)
    assert (resources.GUEST / "metadata.nft").is_file()


def test_a_stock_image_blocks_the_metadata_service_once_it_can() -> None:
    document = yaml.safe_load(gzip.decompress(real("gce", stock=True)))
    assert [command[0] for command in document["runcmd"]] == ["sh", "nft"]


def real(platform: str, *, stock: bool = False) -> bytes:
    """As it is sent, with keys as they are."""
    user, host = keys.generate(), keys.generate()
    return user_data.user_data(
        instance="vm-01",
        deadline=1.8e9,
        boot_ttl=60,
        authorized_key=user.public,
        host_private=host.private,
        host_public=host.public,
        platform=platform,
        stock=stock,
    )


def test_real_keys_fit_well_below_the_limit() -> None:
    assert len(real("local")) < 4096
    with pytest.raises(BadOrder, match="16384"):
        made(authorized_key="x" * 20_000)


def test_a_stock_image_gets_what_ours_have_after_its_timer() -> None:
    packed = real("ec2", stock=True)
    assert len(packed) < 16_300
    document = yaml.safe_load(gzip.decompress(packed))
    timer, *others = document["bootcmd"]
    assert timer[3] == "vmrunner-deadline"
    assert any("PasswordAuthentication no" in word for command in others for word in command)
    files = {file["path"]: file for file in document["write_files"]}
    assert document["runcmd"][0] == ["sh", "/usr/lib/vmrunner/bootstrap.sh"]
    for name in ("supervisor", "launcher"):
        assert files[f"/usr/lib/vmrunner/{name}"]["permissions"] == "0755"
    for path in resources.GUEST.glob("[!.]*.py"):
        if path.name not in ("launcher.py", *stock_image.OF_OUR_IMAGES):
            assert f"/usr/lib/vmrunner/guest/{path.name}" in files


def test_the_lean_supervisor_is_the_same_program() -> None:
    _, rest = stock_image.modules()
    files = {file["path"].rpartition("/")[2]: file["content"] for file in rest["write_files"]}
    for path in resources.GUEST.glob("[!.]*.py"):
        if path.name in stock_image.OF_OUR_IMAGES:
            continue
        lean = files["launcher" if path.name == "launcher.py" else path.name]
        same = lean.replace("raise ImportError", "pass")  # where a module of our images is needed
        assert not Counter(_substance(same)) - Counter(_substance(path.read_text())), path.name
        gone = _definitions(path.read_text()) - _definitions(lean)
        program = "".join(files.values())
        assert not [name for name in gone if re.search(rf"\b{name}\(", program)]


def _definitions(text: str) -> set[str]:
    """The names of all functions."""
    return {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}


def _substance(text: str) -> list[str]:
    """All expressions but what is said of types, and strings that stand alone: neither
    does anything."""
    nodes = list(ast.walk(ast.parse(text)))
    idle = [n.value for n in nodes if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    idle += [n.annotation for n in nodes if isinstance(n, ast.arg) and n.annotation]
    idle += [n.annotation for n in nodes if isinstance(n, ast.AnnAssign)]
    idle += [n.returns for n in nodes if isinstance(n, ast.FunctionDef) and n.returns]
    idle += [n.test for n in nodes if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    silent = {id(part) for node in idle for part in ast.walk(node)}
    return [ast.dump(n) for n in nodes if isinstance(n, ast.expr) and id(n) not in silent]


def test_who_asks_a_vm_that_bootstraps_waits_for_its_supervisor(tmp_path: Path) -> None:
    state = tmp_path / "state"
    script = (resources.path("cloud-init") / "waiting.sh").read_text()
    script = script.replace("/run/vmrunner-bootstrap", str(state))
    script = script.replace("/usr/lib/vmrunner/launcher", "echo asked")
    state.mkdir()
    with subprocess.Popen(["sh", "-c", script, "x", "status"], stdout=subprocess.PIPE) as waiting:
        assert waiting.poll() is None
        (state / "ready").touch()
        assert waiting.communicate(timeout=30)[0] == b"asked status\n"
    (state / "ready").unlink()
    (state / "failed").write_text("bootstrap: E: no such package\n")
    status = subprocess.run(["sh", "-c", script, "x", "status"], capture_output=True, check=False)
    assert (status.returncode, status.stderr) == (1, b"bootstrap: E: no such package\n")


@pytest.mark.parametrize("works", [True, False])
def test_a_bootstrap_says_how_it_ended(tmp_path: Path, *, works: bool) -> None:
    """Over stand-ins for apt and systemd."""
    lib, state, programs = tmp_path / "lib", tmp_path / "state", tmp_path / "bin"
    for place in (lib, programs):
        place.mkdir()
    (lib / "docker.sh").write_text("echo docker is configured\n")
    (lib / "supervisor").write_text("waits")
    calls = tmp_path / "calls"
    fails = "" if works else 'case "$*" in *install*) echo "E: no package"; exit 100;; esac'
    for name in ("apt-get", "apt-cache", "systemctl", "sleep"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{calls}\n{fails}\n')
        (programs / name).chmod(0o755)
    script = (resources.path("cloud-init") / "bootstrap.sh").read_text()
    for old, new in (
        ("/usr/lib/vmrunner", lib),
        ("/run/vmrunner-bootstrap", state),
        ("/usr/sbin/policy-rc.d", tmp_path / "policy"),
    ):
        script = script.replace(str(old), str(new))
    path = f"{programs}:/usr/bin:/bin"
    code = subprocess.run(["sh", "-c", script], env={"PATH": path}, check=False).returncode
    assert not (tmp_path / "policy").exists()
    assert (state / "ready").exists() is works
    if works:
        assert code == 0
        assert (lib / "supervisor").readlink() == Path("launcher")
        assert calls.read_text().splitlines()[-1] == "systemctl start docker.socket"
    else:
        assert code
        assert (state / "failed").read_text() == "bootstrap: E: no package\n"
        assert (lib / "supervisor").read_text() == "waits"
        assert calls.read_text().count("install --no") == 20


def test_the_timer_script_is_a_shell_script() -> None:
    script = resources.path("cloud-init") / "deadline.sh"
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0


def test_a_stock_image_can_run_the_supervisor_that_it_gets(tmp_path: Path) -> None:
    """Without the modules that only our own images have."""
    _, rest = stock_image.modules()
    for file in rest["write_files"]:
        if file["path"].startswith(stock_image.LIBRARY):
            path = tmp_path / file["path"].removeprefix(f"{stock_image.LIBRARY}/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(file["content"])
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import guest.build\n"  # `run` loads it late
        "from guest.state import Place\n"
        "from guest.supervisor import main\n"
        "place = Place(f'{sys.argv[1]}/run', f'{sys.argv[1]}/lib')\n"
        "sys.exit(main(['status', '--epoch', '1'], place))"
    )
    words = [sys.executable, "-S", "-c", program, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b'{"started": "", "ended": false}'
