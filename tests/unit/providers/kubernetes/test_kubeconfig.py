"""Kubeconfigs, as tools of others write them: the way in, and what is refused by name."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from vmrunner.errors import ConfigError
from vmrunner.providers.kubernetes import exec_plugin, kubeconfig
from vmrunner.providers.kubernetes.kubeconfig import Cluster

PLUGIN = """#!{python}
import json, os, sys
with open({calls!r}, "a") as calls:
    calls.write(os.environ["KUBERNETES_EXEC_INFO"] + "\\n")
print(json.dumps({answer}))
"""


def write(path: Path, user: dict[str, Any], **cluster: Any) -> Path:
    name = path.stem
    table = {
        "clusters": [{"name": name, "cluster": {"server": "https://cluster.test:6443", **cluster}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    path.write_text(yaml.safe_dump(table))
    return path


def found(path: Path, **more: Any) -> Cluster:
    return kubeconfig.find(str(path), more.pop("context", None), environ={}, **more)


def plugin(tmp_path: Path, answer: str, **more: Any) -> dict[str, Any]:
    """A user whose token a program tells."""
    program, calls = tmp_path / "login", tmp_path / "calls"
    text = PLUGIN.format(python=sys.executable, calls=str(calls), answer=answer)
    program.write_text(text)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./login", **more}}


def test_a_token_is_taken_and_its_file_read_again(tmp_path: Path) -> None:
    assert found(write(tmp_path / "a", {"token": "abc"})).credentials.token() == "abc"
    (tmp_path / "token").write_text("one\n")
    credentials = found(write(tmp_path / "b", {"tokenFile": "token"})).credentials
    assert credentials.token() == "one"
    (tmp_path / "token").write_text("two\n")
    os.utime(tmp_path / "token", (0, 0))  # a file system may write its times down by ticks alone
    assert credentials.token() == "two"
    (tmp_path / "token").unlink()
    with pytest.raises(ConfigError, match="tokenFile"):
        credentials.token()


def test_a_plugin_is_asked_once_until_its_token_ends(tmp_path: Path) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "status": {"token": "abc", "expirationTimestamp": soon},
    }
    user = plugin(tmp_path, repr(answer), provideClusterInfo=True, env=[{"name": "A", "value": 1}])
    credentials = found(write(tmp_path / "c", user)).credentials
    assert [credentials.token(), credentials.token()] == ["abc", "abc"]
    (call,) = (tmp_path / "calls").read_text().splitlines()
    request = json.loads(call)
    assert request["kind"] == "ExecCredential"
    assert request["spec"]["interactive"] is False
    assert request["spec"]["cluster"]["server"] == "https://cluster.test:6443"
    found(tmp_path / "c").credentials.token()
    assert len((tmp_path / "calls").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("answer", "words"),
    [("1/0", "exit code 1: ZeroDivisionError"), ("[]", "TypeError"), ("{}", "KeyError")],
)
def test_a_plugin_that_fails_tells_how_to_mend_it(tmp_path: Path, answer: str, words: str) -> None:
    user = plugin(tmp_path, answer, installHint="install the\nlogin tool")
    credentials = found(write(tmp_path / "d", user)).credentials
    with pytest.raises(ConfigError, match=r"exec \./login") as error:
        credentials.token()
    assert words in str(error.value)
    assert error.value.hint == "install the login tool"
    user["exec"]["apiVersion"] = "client.authentication.k8s.io/v1alpha1"
    with pytest.raises(ConfigError, match="v1alpha1"):
        found(write(tmp_path / "e", user)).credentials.token()


@pytest.mark.parametrize(
    ("user", "cluster", "words"),
    [
        ({"username": "root", "password": "x"}, {}, "username is not taken"),
        ({"auth-provider": {"name": "gcp"}}, {}, "auth-provider is not taken"),
        ({"token": "x"}, {"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify"),
        ({"token": "x"}, {"server": "http://cluster.test"}, "server 'http://cluster.test'"),
        ({"token": "x"}, {"proxy-url": "http://proxy"}, "proxy-url"),
        ({"token": "x"}, {"certificate-authority": "gone.pem"}, "certificate-authority"),
        ({"token": "x"}, {"certificate-authority-data": "%"}, "certificate-authority"),
    ],
)
def test_what_is_not_taken_is_named(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        found(write(tmp_path / "f", user, **cluster))
    assert words in str(error.value)
    assert error.value.hint


def test_the_context_is_found_in_any_file(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, {"token": name}) for name in ("one", "two")]
    environ = {"KUBECONFIG": ":".join([*map(str, paths), str(tmp_path / "none")])}
    assert kubeconfig.find(None, None, environ=environ).credentials.token() == "one"
    assert kubeconfig.find(None, "two", environ=environ).credentials.token() == "two"
    with pytest.raises(ConfigError, match="no context 'three'") as error:
        kubeconfig.find(None, "three", environ=environ)
    assert error.value.hint == "one of: one, two"


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        found(tmp_path / "none")
    (tmp_path / "bad").write_text("a: [")
    with pytest.raises(ConfigError, match="bad"):
        found(tmp_path / "bad")
    (tmp_path / "empty").write_text("{}")
    with pytest.raises(ConfigError, match="no current-context"):
        found(tmp_path / "empty")


def test_in_a_pod_its_service_account_is_used(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-the-pod")
    (tmp_path / "ca.crt").write_text("PEM")
    environ = {
        "KUBERNETES_SERVICE_HOST": "fd00::1",
        "KUBERNETES_SERVICE_PORT": "6443",
        "HOME": str(tmp_path),
    }
    cluster = kubeconfig.find(None, None, environ=environ, account=tmp_path)
    assert cluster.server == "https://[fd00::1]:6443"
    assert (cluster.credentials.token(), cluster.ca) == ("of-the-pod", "PEM")


def test_certificates_are_taken_from_the_table(tmp_path: Path) -> None:
    data = base64.b64encode(b"not a certificate").decode()
    user = {"client-certificate-data": data, "client-key-data": data}
    cluster = found(write(tmp_path / "g", user))
    assert cluster.credentials.certificate() == ("not a certificate", "not a certificate")
    with pytest.raises(ConfigError, match="cannot be used"):
        cluster.context()


@pytest.mark.parametrize("token", ["geheim\nX-Evil: 1", "geheim\u00e9", "geheim\u2026", "geheim b"])
def test_a_token_is_never_shown(tmp_path: Path, token: str) -> None:
    """A library that is given what no header takes would tell all of it."""
    credentials = found(write(tmp_path / "g", {"token": token})).credentials
    with pytest.raises(ConfigError, match="no header takes") as error:
        credentials.token()
    assert "geheim" not in str(error.value)
    assert found(write(tmp_path / "h", {"token": "abc\n"})).credentials.token() == "abc"
    (tmp_path / "i").write_text("users:\n- name: u\n  user:\n    token: geheim: x\n")
    with pytest.raises(ConfigError, match="line 4") as error:
        found(tmp_path / "i")
    assert "geheim" not in str(error.value)


def test_a_plugin_that_hangs_shows_no_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_plugin, "TIMEOUT", 0.05)
    user = plugin(tmp_path, "__import__('time').sleep(60)", args=["--key=geheim"])
    with pytest.raises(ConfigError, match="no answer within") as error:
        found(write(tmp_path / "j", user)).credentials.token()
    assert "geheim" not in str(error.value)


_SPEAKS: dict[str, Any] = {"apiVersion": "client.authentication.k8s.io/v1", "command": "echo"}


@pytest.mark.parametrize(
    "user",
    [
        "text",
        [1],
        5,
        {"exec": None},
        {"exec": "text"},
        {"exec": {**_SPEAKS, "env": 5}},
        {"exec": {**_SPEAKS, "env": [{"name": "a"}]}},
        {"exec": {**_SPEAKS, "args": ['{"status": {"token": "a", "expirationTimestamp": "b"}}']}},
    ],
)
def test_what_makes_no_sense_is_a_fault_of_the_configuration(tmp_path: Path, user: Any) -> None:
    with pytest.raises(ConfigError):
        found(write(tmp_path / "k", user)).credentials.token()


@pytest.mark.parametrize("what", ["clusters", "users", "contexts"])
@pytest.mark.parametrize("value", [5, "text", [5], [None]])
def test_a_list_that_is_none_names_nothing(tmp_path: Path, what: str, value: Any) -> None:
    path = write(tmp_path / "l", {"token": "a"})
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {what: value}))
    with pytest.raises(ConfigError, match="it has no"):
        found(path)
