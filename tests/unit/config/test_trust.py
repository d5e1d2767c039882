"""A project's file is code that nobody has read: who may have written it, and what it may say."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from vmrunner.config import sources, trust
from vmrunner.errors import ConfigError, NotFound
from vmrunner.providers import registry
from vmrunner.providers.gce.settings import GceSettings

GCE = """
[providers.google]
kind = "gce"
project = "acme-ci"
zones = ["europe-west1-b"]
api_endpoint = "https://localhost:9443"
"""


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "xdg" / name))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project" / "vmrunner.toml"


def load(file: Path, **environ: str) -> sources.LoadedSettings:
    return sources.load(environ=environ, start=file.parent)


def refused(file: Path, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file, **environ)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (GCE, "providers.google.api_endpoint, providers.google.project"),
        ("[database]\nurl = 'postgresql://x@127.0.0.1:1/evil'", "database.url"),
        ("[store]\nurl = 's3://evil'\nendpoint = 'http://h'", "store.endpoint, store.url"),
        ("secret_key = 's3cret-s3cret'", "secret_key"),
        ("installation = '6f1c0000-0000-4000-8000-000000000001'", "installation"),
        ("[limits]\nprivileged = true\nmax_instances = 2", "limits.privileged"),
        ("[reaper]\nkeep_logs = '1s'", "reaper.keep_logs"),
        ("[[notify]]\nname = 'a'\nurl = 'https://evil'\nsecret = 'HOME'", "notify"),
        (
            "[providers.a]\nkind = 'ec2'\nprofile = 'prod'\nregion = 'eu-west-1'",
            "providers.a.profile",
        ),
        (
            "[providers.a]\nkind = 'ec2'\nimage = {owner = '123', name = 'x'}",
            "providers.a.image.name, providers.a.image.owner",
        ),
        ("[providers.a]\nkind = 'ec2'\nimage = {}", "providers.a.image"),
        ("[providers.a]\nkind = 'ec2'\nendpoint_url = 'http://h'", "providers.a.endpoint_url"),
        ("[providers.a]\nkind = 'ec2'\nscheduler_role = 'arn:x'", "providers.a.scheduler_role"),
        ("[providers.a]\nkind = 'ec2'\ninstance_profile = 'x'", "providers.a.instance_profile"),
    ],
)
def test_what_sends_data_somewhere_or_widens_rights_needs_trust(
    file: Path, text: str, keys: str
) -> None:
    file.write_text(text)
    message = refused(file)
    assert f"{file}: {keys}: " in message
    assert f"`vmrunner config trust {file}`" in message
    assert "s3cret" not in message
    trust.add(file)
    load(file)


def test_sizes_and_limits_of_cost_are_a_projects_to_say(file: Path) -> None:
    file.write_text(
        "[limits]\nmax_ttl = '1h'\n[defaults]\ntimeout = '5m'\nnetwork = 'none'\n"
        "[providers.local]\nkind = 'qemu'\nimage = 'gvisor'\ncpus = 4\nmemory = '4GiB'\n"
        "[providers.aws]\nkind = 'ec2'\nspot = 'only'\ninstance_types = ['m7i.large']"
    )
    assert load(file).settings.limits.max_ttl == 3600


SIZES = {
    "accel", "cpus", "disk", "disk_type", "instance_types", "kind", "machine_types",
    "sizes",
    "max_instances", "memory", "region", "spot", "zones",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["qemu", "ec2", "gce", "azure", "kubernetes", "fake"])
def test_new_provider_keys_need_trust_until_known_harmless(kind: str) -> None:
    fields = registry.settings_of(registry.drivers()[kind]).model_fields
    table = {"providers": {"p": dict.fromkeys([*fields, "next"], 1)}}
    table["providers"]["p"]["kind"] = kind  # type: ignore[assignment]
    free = {key[2] for key in trust._leaves(table)} - {
        key[2] for key in trust.held(table, {}, table)
    }
    assert free <= SIZES | {"image", "templates"}
    assert ("image" in free) == (kind == "qemu")


def test_the_users_own_files_the_environment_and_flags_need_none(
    file: Path, tmp_path: Path
) -> None:
    sources.user_file().parent.mkdir(parents=True)
    sources.user_file().write_text(GCE)
    file.write_text("[providers.google]\nmachine_types = ['n2-standard-4']")
    google = load(file).settings.providers["google"]
    assert isinstance(google, GceSettings)
    assert google.project == "acme-ci"
    named = tmp_path / "mine.toml"
    named.write_text("[limits]\nprivileged = true")
    assert load(file, VMRUNNER_CONFIG=str(named)).settings.limits.privileged
    assert load(file, VMRUNNER_LIMITS__PRIVILEGED="true").settings.limits.privileged


def test_another_kind_for_a_provider_of_the_users_needs_trust(file: Path) -> None:
    """Its VMs would be out of sight: no sweep, no reaper, no audit looks at them."""
    sources.user_file().parent.mkdir(parents=True)
    sources.user_file().write_text(GCE)
    file.write_text("[providers.google]\nkind = 'qemu'")
    assert "providers.google.kind" in refused(file)
    file.write_text("[providers.google]\nkind = 'gce'")
    assert load(file).settings.providers["google"].kind == "gce"


def test_what_something_stronger_says_is_not_the_projects(file: Path) -> None:
    """As the demo does: the project's own is never used."""
    file.write_text("[database]\nurl = 'sqlite:////elsewhere/l.db'")
    mine = "sqlite:////mine/l.db"
    assert load(file, VMRUNNER_DATABASE_URL=mine).settings.database.url == mine


@pytest.mark.parametrize(
    "setting",
    ["network = 'open'", "network = { allow = ['a.example'] }", "container_runtime = 'runc'"],
)
def test_a_default_that_protects_is_not_undone(file: Path, setting: str) -> None:
    file.write_text(f"[defaults]\n{setting}")
    load(file)
    sources.user_file().parent.mkdir(parents=True)
    sources.user_file().write_text("[defaults]\nnetwork = 'none'\ncontainer_runtime = 'runsc'")
    assert f"defaults.{setting.split()[0]}" in refused(file)


def test_trust_is_in_one_content_at_one_place(file: Path, tmp_path: Path) -> None:
    file.write_text(GCE)
    trust.add(file)
    load(file)
    other = tmp_path / "other" / "vmrunner.toml"
    other.parent.mkdir()
    other.write_text(GCE)
    assert str(other) in refused(other), "relative paths mean something else there"
    file.write_text(GCE + "disk = '30GiB'\n")
    assert str(file) in refused(file), "it changed"
    assert [entry.state for entry in trust.entries()] == ["changed"]
    trust.add(file)
    load(file)
    trust.revoke(file)
    assert str(file) in refused(file)
    assert trust.entries() == []
    with pytest.raises(NotFound, match="is not trusted"):
        trust.revoke(file)


def test_what_is_trusted_is_written_for_its_owner_alone(file: Path) -> None:
    before = os.umask(0)
    try:
        file.write_text(GCE)
        file.chmod(0o644)
        trust.add(file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(trust.store().stat().st_mode) == 0o600
    assert stat.S_IMODE(trust.store().parent.stat().st_mode) == 0o700


def test_a_store_that_cannot_be_read_trusts_nothing(file: Path) -> None:
    file.write_text(GCE)
    trust.add(file)
    trust.store().write_text('[{"path": 1}]')
    assert "trusted.json" in refused(file)


def test_a_pyproject_is_trusted_too(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool.vmrunner.limits]\nprivileged = true")
    assert "limits.privileged" in refused(file)
    trust.add(file)
    assert load(file).settings.limits.privileged


# --- whose file ----------------------------------------------------------------------------------


def obeyed(file: Path, caplog: pytest.LogCaptureFixture) -> bool:
    """Is it? If not, that is told, once, with what mends it."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "vmrunner"):
        ttl = load(file).settings.limits.max_ttl
    messages = [record.getMessage() for record in caplog.records]
    assert (ttl == 60) == (messages == []), messages
    assert all(f"{file} is not obeyed: " in text and "VMRUNNER_CONFIG" in text for text in messages)
    assert len(messages) <= 1
    return ttl == 60


def test_a_file_that_others_may_write_is_not_obeyed(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text("[limits]\nmax_ttl = '60s'")
    assert obeyed(file, caplog)
    file.chmod(0o666)
    assert not obeyed(file, caplog)
    assert "mode 0666" in caplog.text
    assert f"chmod go-w {file}" in caplog.text
    with pytest.raises(ConfigError, match="cannot be trusted: others may write"):
        trust.add(file)
    file.chmod(0o644)
    file.parent.chmod(0o777)
    assert not obeyed(file, caplog)
    assert f"others may write {file.parent} (mode 0777)" in caplog.text
    file.parent.chmod(0o1777)
    assert obeyed(file, caplog), "it is ours, and in a sticky directory nobody replaces it"


def test_a_file_below_a_world_writable_directory_is_not_obeyed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deep = tmp_path / "open" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "vmrunner.toml").write_text("[limits]\nmax_ttl = '60s'")
    assert obeyed(deep / "vmrunner.toml", caplog)
    (tmp_path / "open").chmod(0o777)
    assert not obeyed(deep / "vmrunner.toml", caplog)


def test_a_link_counts_as_what_it_leads_through(
    tmp_path: Path, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "real.toml").write_text("[limits]\nmax_ttl = '60s'")
    (shared / "link").symlink_to("real.toml")
    file.symlink_to("../shared/link")
    assert obeyed(file, caplog)
    shared.chmod(0o777)
    assert not obeyed(file, caplog)
    (shared / "link").unlink()
    (shared / "link").symlink_to("link")
    assert trust.doubt(shared / "link") is not None


def test_another_users_file_is_not_obeyed(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("[limits]\nmax_ttl = '60s'\n")
    if os.geteuid() == 0:  # who alone may give a file away
        os.chown(file, 23456, 23456)
        assert not obeyed(file, caplog)
        assert f"{file} belongs to uid 23456" in caplog.text
        os.chown(file, 0, 0)
        os.chown(file.parent, 23456, 23456)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 23456)
    assert not obeyed(file, caplog)
    assert f"{file.parent} belongs to" in caplog.text or os.geteuid() == 23456


def test_only_our_part_of_anothers_pyproject_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "pyproject.toml"
    for text, warnings in (("[project\n", 0), ("[tool.vmrunner\n", 1), ("[tool.vmrunner]\n", 1)):
        file.write_text(text)
        file.chmod(0o666)
        caplog.clear()
        load(file)
        assert len(caplog.records) == warnings, text
