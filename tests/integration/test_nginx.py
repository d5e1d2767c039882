"""The service behind Debian's nginx with the file of `deploy/`, called from another network."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.entered import ENTER, entered
from tests.support.nginx_world import NAME, UnixDoor
from tests.support.sandboxes import SandboxWorld
from tests.support.sandboxes import sandbox as sandbox  # the fixture
from tests.support.session_world import sshd as sshd
from tests.support.session_world import world as world
from tests.support.sshd import Sshd
from tests.support.web_service import EchoSocket, WebService
from vmrunner.model import TokenScope

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]
WORLD = ["unshare", "--user", "--map-root-user", "--net", "--mount", sys.executable, "-m"]


def certify(root: Path, names: list[str]) -> None:
    """Make a certificate of these names, and of our own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(map(x509.DNSName, names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (root / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (root / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def test_who_is_behind_nginx_enters_as_anybody(
    tmp_path: Path, sandbox: SandboxWorld, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terminals, ports, `ssh`, pages of ports and their WebSockets."""
    web, echo = WebService(), EchoSocket()
    server = {"url": f"https://{NAME}", "port_domain": "*.ports.example.org"}
    root = tmp_path / "nginx"
    root.mkdir()
    certify(root, [NAME, "*.ports.example.org"])
    (root / "names").write_text(f"{web.port}-b-2.ports.example.org")
    conf = (ROOT / "deploy/nginx/vmrunner.conf").read_text()
    conf = conf.replace("/etc/ssl/vmrunner", str(root))
    conf = conf.replace(f"server_name {NAME};", f"server_name {NAME} *.ports.example.org;")
    (root / "vmrunner.conf").write_text(conf)
    with entered(tmp_path, sshd, monkeypatch, server=server) as served:
        served.running("b-2", sandbox_ttl=600.0, steps=())
        door = UnixDoor(root / "door", ("127.0.0.1", served.http.listener.port))
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "TERM": "xterm",
            "PYTHONPATH": str(ROOT), "SSL_CERT_FILE": str(root / "cert.pem"),
            "VMRUNNER_SERVER": f"https://{NAME}",
            "VMRUNNER_TOKEN": served.token(scopes=ENTER | {TokenScope.READ}),
        }  # fmt: skip
        caller = [sys.executable, "-m", "tests.support.nginx_caller", str(web.port), str(echo.port)]
        done = subprocess.run(
            [*WORLD, "tests.support.nginx_world", str(root), *caller],
            env=environment, cwd=ROOT, capture_output=True, check=False, timeout=110,
        )  # fmt: skip
        door.close()
        details = [action.detail for action in served.ledger.actions.latest()]
    web.close()
    echo.close()
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert found["ssh"] == [9, True, ""]
    assert "/dev/pts/" in found["terminal"]
    assert "42 by TLS" in found["page's terminal"]
    assert found["forward"] == "HTTP/1.1 200 OK"
    page = found["page"]
    assert (page["path"], page["body"]) == ("/a%2Fb?x=1", 512_000)
    assert page["headers"]["x-forwarded-host"] == NAME
    assert page["headers"]["x-forwarded-proto"] == "https"
    assert not {"authorization", "x-forwarded-for"} & set(page["headers"])
    assert (found["own"], found["websocket"], found["upgrade"]) == ("/own", "through nginx", 426)
    assert "the VM, from 127.0.0.1 by 127.0.0.1" in details
