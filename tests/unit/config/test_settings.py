"""Where settings come from, in which order, and what is said when they are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from sqlalchemy.engine import make_url

from vmrunner.config import paths, sources
from vmrunner.config import settings as config
from vmrunner.config.settings import Settings
from vmrunner.core import cron_line
from vmrunner.errors import ConfigError
from vmrunner.lib import database_url


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg-config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg-data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg-cache"))


def load(start: Path, **environ: str) -> sources.LoadedSettings:
    return sources.load(environ=environ, start=start)


def user_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "xdg-config" / "vmrunner" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_with_no_config_there_is_one_local_qemu_provider(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert {name: p.kind for name, p in loaded.settings.providers.items()} == {"local": "qemu"}
    assert loaded.settings.provider() == "local"
    assert loaded.settings.limits.max_ttl == 4 * 3600
    assert loaded.settings.defaults.container == "debian:trixie"
    assert all(origin == "default" for _, _, origin in loaded.rows())


def test_the_default_cron_line_is_one() -> None:
    """It is the one default that is not checked when settings are made."""
    sweep = Settings().reaper.sweep
    assert cron_line.check(sweep, "reaper.sweep") == sweep


def test_sizes_are_shown_as_they_may_be_said(tmp_path: Path) -> None:
    (tmp_path / "vmrunner.toml").write_text("[providers.l]\nkind = 'qemu'\nmemory = 1500000000")
    loaded = load(tmp_path)
    shown = {key: json.loads(value) for key, value, _ in loaded.rows(readable=True)}
    assert shown["limits.log_bytes"] == "64MiB"
    assert shown["providers.l.templates_max_bytes"] == "20GiB"  # the driver's own default
    assert shown["providers.l.memory"] == "1500000000"
    assert shown["providers.l.cpus"] == 2
    plain = {key: json.loads(value) for key, value, _ in loaded.rows()}
    changed = ((key, value) for key, value in shown.items() if value != plain[key])
    environ = {f"VMRUNNER_{key.replace('.', '__').upper()}": value for key, value in changed}
    again = load(tmp_path, **environ)
    assert {key: json.loads(value) for key, value, _ in again.rows()} == plain


def test_only_durations_are_shown_as_such(tmp_path: Path) -> None:
    (tmp_path / "vmrunner.toml").write_text(
        "[providers.l]\nkind = 'fake'\n"
        "[pools.p]\nprovider = 'l'\nusd_per_day = 20\nhit_rate = 0.95\nmax = 3\nidle = '30m'"
    )
    for readable in (True, False):
        shown = {key: json.loads(text) for key, text, _ in load(tmp_path).rows(readable=readable)}
        assert (shown["pools.p.usd_per_day"], shown["pools.p.hit_rate"]) == (20.0, 0.95)
        assert (shown["pools.p.idle"], shown["defaults.timeout"]) == ("30m", "30m")
        assert shown["server.oidc"] == []


def test_later_sources_win_and_each_value_knows_its_own(tmp_path: Path) -> None:
    user_file(tmp_path, "[limits]\nmax_ttl = '1h'\nmax_instances = 3\nlog_bytes = '1MiB'")
    project = tmp_path / "project"
    below = project / "deep" / "er"
    below.mkdir(parents=True)
    (project / "vmrunner.toml").write_text("[limits]\nmax_ttl = '2h'\nmax_instances = 5")
    loaded = sources.load(
        environ={"VMRUNNER_LIMITS__MAX_TTL": "3h"},
        start=below,
        flags={"defaults": {"timeout": "5m"}},
    )
    limits = loaded.settings.limits
    assert (limits.max_ttl, limits.max_instances, limits.log_bytes) == (10_800, 5, 1 << 20)
    assert loaded.settings.defaults.timeout == 300
    origins = {key: origin for key, _, origin in loaded.rows()}
    assert origins["limits.max_ttl"] == "VMRUNNER_LIMITS__MAX_TTL"
    assert origins["limits.max_instances"] == str(project / "vmrunner.toml")
    assert origins["limits.log_bytes"].endswith("config.toml")
    assert origins["defaults.timeout"] == "flag"
    assert origins["reaper.sweep"] == "default"


def test_pyproject_is_read_when_it_has_a_table(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.vmrunner.limits]\nmax_instances = 7")
    below = tmp_path / "package"
    below.mkdir()
    (below / "pyproject.toml").write_text("[project]\nname = 'other'")
    loaded = load(below)
    assert loaded.settings.limits.max_instances == 7
    assert loaded.origins["limits", "max_instances"].endswith("pyproject.toml [tool.vmrunner]")


def test_the_named_file_stands_alone(tmp_path: Path) -> None:
    user_file(tmp_path, "[limits]\nmax_instances = 3")
    (tmp_path / "vmrunner.toml").write_text("[limits]\nmax_instances = 4")
    (tmp_path / "mine.toml").write_text("[limits]\nmax_ttl = '1h'")
    loaded = load(tmp_path, VMRUNNER_CONFIG=str(tmp_path / "mine.toml"))
    assert (loaded.settings.limits.max_ttl, loaded.settings.limits.max_instances) == (3600, 20)


def test_a_provider_of_another_kind_replaces_the_users_whole(tmp_path: Path) -> None:
    user_file(tmp_path, "[providers.local]\nkind = 'qemu'\naccel = 'tcg'\ncpus = 4")
    loaded = load(tmp_path, VMRUNNER_PROVIDERS__LOCAL__KIND="fake")
    assert loaded.settings.providers["local"].kind == "fake"
    assert ("providers", "local", "cpus") not in loaded.origins


def test_environment_alone_can_change_the_default_provider(tmp_path: Path) -> None:
    loaded = load(tmp_path, VMRUNNER_PROVIDERS__LOCAL__ACCEL="tcg")
    assert loaded.settings.provider_options("local") == {"accel": "tcg", "dns": "auto"}


def test_what_a_build_finds_in_its_environment_is_no_setting(tmp_path: Path) -> None:
    """vmrunner may be what a build of vmrunner's runs."""
    loaded = load(tmp_path, VMRUNNER_BUILD="b-1", VMRUNNER_ATTEMPT="1", VMRUNNER_PLATFORM="local")
    assert all(origin == "default" for _, _, origin in loaded.rows())


def test_short_names_of_the_environment(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        VMRUNNER_DATABASE_URL="postgresql://u:p@db/v",
        VMRUNNER_INSTALLATION=" 6F1C0000-0000-4000-8000-000000000001 ",
        VMRUNNER_SECRET_KEY="s3cret-s3cret",
        VMRUNNER_DEFAULT_PROVIDER="qemu",
    ).settings
    assert settings.database.url == "postgresql://u:p@db/v"
    assert settings.installation == "6f1c0000-0000-4000-8000-000000000001"
    assert settings.secret_key is not None
    assert settings.provider() == "local", "a kind that only one provider has"


def test_secrets_are_masked_wherever_they_are_shown(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        VMRUNNER_DATABASE_URL="postgresql://user:hunter2@db:5432/v",
        VMRUNNER_SECRET_KEY="s3cret-s3cret",
    )
    shown = json.dumps(loaded.rows()) + repr(loaded.settings) + sources.dump(loaded.settings)
    assert "s3cret" not in shown
    values = {key: value for key, value, _ in loaded.rows()}
    assert values["database.url"] == '"postgresql://user:***@db:5432/v"'
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, VMRUNNER_SECRET_KEY='["s3cret"]')
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("[limits]\nmax_tll = '2h'", "limits.max_tll: no such key (did you mean 'max_ttl'?)"),
        ("[limts]\nmax_ttl = '2h'", "limts: no such key (did you mean 'limits'?)"),
        (
            "[limits]\nmax_ttl = 'soon'",
            "limits.max_ttl: 'soon': not a duration (write it like 30m, 1h30m, 90s, or as seconds)",
        ),
        (
            "[providers.aws]\nkind = 'ec9'",
            "providers.aws.kind: no kind 'ec9' (one of: azure, ec2, fake, gce, kubernetes, qemu)",
        ),
        (
            "[providers.aws]\naccel = 'tcg'",
            "providers.aws.kind: missing (one of: azure, ec2, fake, gce, kubernetes, qemu)",
        ),
        (
            "[providers.aws]\nkin = 'ec2'",
            "providers.aws.kin: no such key (did you mean 'kind'?)",
        ),
        (
            "[providers.local]\nkind = 'qemu'\nacel = 'tcg'",
            "providers.local.acel: no such key (did you mean 'accel'?)",
        ),
        (
            "[providers.aws]\nkind = 'ec2'\nspot = 'often'",
            "providers.aws.spot: 'often': not one of them (one of: never, only, prefer)",
        ),
        (
            "[providers.aws]\nkind = 'ec2'\nsubnet = 'subnet-1'",
            "providers.aws.subnet: no such key (did you mean 'subnets'?)",
        ),
        ("[reaper]\nsweep = '61 * * * *'", "reaper.sweep: '61 * * * *': minute '61' is not within"),
        ("[reaper]\nsweep = 'hourly'", "reaper.sweep: 'hourly': not a cron line"),
        ("default_provider = 'lokal'", "default_provider: no provider 'lokal' is configured"),
        ("[defaults]\ntimeout = true", "defaults.timeout: true: not a duration"),
        ("'[key]' = 1", "[key]: no such key"),
        ("[limits\n", "not valid TOML"),
    ],
)
def test_an_error_is_one_line_with_file_key_and_fix(
    tmp_path: Path, text: str, refusal: str
) -> None:
    (tmp_path / "vmrunner.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert refusal in message
    assert "\n" not in message
    assert "default_provider" in text or str(tmp_path / "vmrunner.toml") in message


def test_an_unknown_variable_of_ours_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"VMRUNNER_LIMITS__MAX_TLL.*did you mean 'max_ttl'"):
        load(tmp_path, VMRUNNER_LIMITS__MAX_TLL="1h")


@pytest.mark.parametrize("name", ["VMRUNNER_DEFAULT_PROVIDER", "VMRUNNER_CONFIG"])
def test_an_empty_variable_is_an_error_and_never_the_default(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: empty .give it a value, or unset it"):
        load(tmp_path, **{name: ""})


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="VMRUNNER_CONFIG: no file"):
        load(tmp_path, VMRUNNER_CONFIG=str(tmp_path / "none.toml"))


def test_providers_are_named_by_name_or_an_unambiguous_kind(tmp_path: Path) -> None:
    (tmp_path / "vmrunner.toml").write_text(
        "[providers.a]\nkind = 'fake'\n[providers.b]\nkind = 'fake'\n[providers.c]\nkind = 'qemu'"
    )
    settings = load(tmp_path).settings
    assert settings.provider("a") == "a"
    assert settings.provider("qemu") == "c"
    with pytest.raises(ConfigError, match=r"'fake' is the kind of several providers \(name one: a"):
        settings.provider("fake")
    with pytest.raises(ConfigError, match="default_provider: not set"):
        settings.provider()
    with pytest.raises(ConfigError, match="no provider 'cc' is configured"):
        settings.provider("cc")


def test_an_ec2_driver_is_told_its_provider_as_written(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        """
        [providers.aws]
        kind = "ec2"
        region = "eu-west-1"
        image = { owner = "self", name = "ci-*" }
        subnets = ["subnet-b", "subnet-a"]
        security_groups = ["sg-1"]
        spot = "prefer"
        disk = "30GiB"
        max_instances = 50
        tags = { team = "core" }
        """
    )
    settings = load(tmp_path, VMRUNNER_CONFIG=str(tmp_path / "mine.toml")).settings
    assert settings.provider_options("aws") == {
        "region": "eu-west-1",
        "image": {"owner": "self", "name": "ci-*", "tags": {}},
        "subnets": ("subnet-b", "subnet-a"),
        "security_groups": ("sg-1",),
        "security_groups_none": (),
        "subnets_none": (),
        "spot": "prefer",
        "address": "public",
        "disk": 30 << 30,
        "tags": {"team": "core"},
    }


def test_relative_sqlite_paths_mean_beside_the_file_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "vmrunner.toml").write_text("[database]\nurl = 'sqlite:///state/l.db'")
    settings = load(tmp_path, VMRUNNER_CONFIG=str(tmp_path / "vmrunner.toml")).settings
    assert paths.database_url(settings) == f"sqlite:///{tmp_path}/state/l.db"
    assert paths.paths(settings).data == tmp_path / "state" / "l.db.d"


def test_each_ledger_has_a_data_directory_of_its_own(tmp_path: Path) -> None:
    xdg = tmp_path / "xdg-data" / "vmrunner"
    default = Settings()
    assert paths.database_url(default) == f"sqlite:///{xdg}/ledger.db"
    assert paths.paths(default).data == xdg
    same = Settings.model_validate({"database": {"url": f"sqlite:///{xdg}/ledger.db"}})
    assert paths.paths(same).data == xdg
    first, second, again = (
        paths.paths(Settings.model_validate({"database": {"url": url}})).data
        for url in ("postgresql://a@h/one", "postgresql://a@h/two", "postgresql://b:pw@h/one")
    )
    assert first == again
    assert len({first, second, xdg}) == 3


def test_a_dump_reads_back_to_the_same(tmp_path: Path) -> None:
    user_file(
        tmp_path,
        "[limits]\nmax_ttl = '1h30m'\n[providers.'a b']\nkind = 'qemu'\nmemory = '4GiB'"
        '\nimage = "ü\\u007f\\"x"'
        "\n[providers.aws]\nkind = 'ec2'\nsubnets = ['a', 'b']\ntags = {'a.b' = 'c', '' = \"\\n\"}"
        "\n[providers.aws.image]\nname = 'x*'\ntags = {v = '1'}",
    )
    settings = load(tmp_path).settings
    (tmp_path / "dumped.toml").write_text(sources.dump(settings))
    again = load(tmp_path, VMRUNNER_CONFIG=str(tmp_path / "dumped.toml")).settings
    explicit = {"database": config.DatabaseSettings(url=paths.database_url(settings))}
    assert again == settings.model_copy(update=explicit)


def test_the_schema_accepts_what_we_accept() -> None:
    schema = sources.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(
        {"limits": {"max_ttl": "4h"}, "providers": {"local": {"kind": "qemu", "memory": "4GiB"}}},
        schema,
    )
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"limits": {"max_tll": "4h"}}, schema)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://vm:s3cr/et-pw@127.0.0.1:1/vm", "postgresql://vm:***@127.0.0.1:1/vm"),
        ("postgresql://vm:s3:cr?et@[::1]:5/vm", "postgresql://vm:***@[::1]:5/vm"),
        ("postgresql://vm:s3cr@et@h/vm", "postgresql://vm:***@h/vm"),
        ("postgresql://vm@h/vm?password=s3cret&x=1", "postgresql://vm@h/vm?password=***&x=1"),
        ("postgresql://vm@h/vm?sslpassword=s3cret", "postgresql://vm@h/vm?sslpassword=***"),
        ("postgresql:/vm:s3cret@h/vm", "***@h/vm"),
        ("host=h password=s3cret dbname=x", "host=h password=*** dbname=x"),
        ("postgresql://vm@h:5432/v@m", "postgresql://vm@h:5432/v@m"),
        ("sqlite:////a/b@c.db?x=1", "sqlite:////a/b@c.db?x=1"),
    ],
)
def test_no_password_of_a_database_url_is_shown(tmp_path: Path, url: str, shown: str) -> None:
    assert database_url.shown(url) == shown
    try:
        message = json.dumps(load(tmp_path, VMRUNNER_DATABASE_URL=url).rows())
    except ConfigError as error:
        message = str(error)
    assert "s3" not in message


def test_a_database_url_is_taken_apart_as_sqlalchemy_does() -> None:
    for url in (
        "postgresql://vm:s3cr/et-pw@127.0.0.1:1/vm?a=b",
        "postgresql+psycopg://H/x",
        "postgresql://[::1]:77/y",
        "postgresql:///z?host=/run",
    ):
        theirs, ours = make_url(url), database_url.server(url)
        assert (theirs.host or "").lower() == ours.host
        assert theirs.port == ours.port
        assert f"/{theirs.database}" == ours.path


@pytest.mark.parametrize(
    ("url", "hosts", "ports"),
    [
        ("postgresql://h1,h2/x?target_session_attrs=read-write", "h1,h2", ","),
        ("postgresql://vm:a,b@h1:1,H2:22/x?target_session_attrs=read-write", "h1,H2", "1,22"),
        ("postgresql://[::1]:1,h2/x?target_session_attrs=read-write", "::1,h2", "1,"),
    ],
)
def test_several_hosts_reach_the_driver(url: str, hosts: str, ports: str) -> None:
    taken = make_url(database_url.spread(url).replace("postgresql:", "postgresql+psycopg:"))
    arguments = taken.get_dialect()().create_connect_args(taken)[1]
    found = (arguments["host"], arguments.get("port", ","), arguments["dbname"])
    assert found == (hosts, ports, "x")
    assert arguments["target_session_attrs"] == "read-write"
    assert arguments.get("password") in (None, "a,b")
    assert database_url.shown(url).endswith(url.rpartition("@")[2])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://h1:a,h2/x", "its hosts h1:a,h2 cannot be read"),
        ("postgresql://h1,:7/x", "its hosts h1,:7 cannot be read"),
        ("sqlite:///", "sqlite:/// names no file"),
        ("sqlite:////", "sqlite://// names no file"),
        ("postgresql://u:s3cr:et@h:pw/x", "the port is not a number"),
        ("postgresql//h/x", "not a URL"),
        ("sqlite:///a\0b", "it holds a character that no URL has"),
    ],
)
def test_an_unusable_database_url_is_told_with_its_origin(
    tmp_path: Path, url: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"VMRUNNER_DATABASE_URL: database.url: {message}"):
        load(tmp_path, VMRUNNER_DATABASE_URL=url)
