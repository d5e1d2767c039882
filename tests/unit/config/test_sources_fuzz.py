"""Whatever stands in a configuration file: settings, or one `ConfigError` with file or key."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vmrunner.config import settings as config
from vmrunner.config import sources
from vmrunner.config.paths import paths
from vmrunner.errors import ConfigError
from vmrunner.providers.ec2.settings import Ec2Settings, ImageSettings
from vmrunner.providers.gce.settings import GceSettings
from vmrunner.providers.qemu.settings import QemuSettings

KEYS = sorted(
    set(config.Settings.model_fields)
    | {
        key
        for model in (
            config.DatabaseSettings,
            config.LimitSettings,
            config.DefaultSettings,
            config.ReaperSettings,
            QemuSettings,
            Ec2Settings,
            GceSettings,
            ImageSettings,
        )
        for key in model.model_fields
    }
    | {"local", "aws"}
)
WORDS = ["qemu", "ec2", "gce", "fake", "open", "none", "30m", "4GiB", "* * * * *", "sqlite:///", ""]
scalars = (
    st.sampled_from(WORDS)
    | st.text(max_size=8)
    | st.integers()
    | st.booleans()
    | st.floats()
    | st.sampled_from(["postgresql://u:pw@h:port/x", "sqlite:////", "sqlite:///\0", "://"])
)
names = st.sampled_from(KEYS) | st.text(max_size=6)
tables = st.recursive(
    scalars | st.lists(scalars, max_size=3),
    lambda inner: st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        "database": st.dictionaries(st.just("url") | names, tables, max_size=2) | tables,
        "limits": st.dictionaries(
            st.sampled_from(sorted(config.LimitSettings.model_fields)), tables
        ),
        "defaults": st.dictionaries(
            st.sampled_from(sorted(config.DefaultSettings.model_fields)), tables
        ),
        "reaper": st.dictionaries(
            st.sampled_from(sorted(config.ReaperSettings.model_fields)), tables
        ),
        "providers": st.dictionaries(names, st.dictionaries(names, tables, max_size=4), max_size=2),
        "default_provider": tables,
        "installation": tables,
        "secret_key": tables,
    },
)


def inline(value: Any) -> str:
    """As TOML, in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{inline(k)} = {inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, float):
        return repr(value)  # inf and nan are TOML too
    return json.dumps(value).replace("\x7f", "\\u007f")


@pytest.fixture(scope="module")
def place() -> Any:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def check(place: Path, content: bytes) -> None:
    file = place / "vmrunner.toml"
    file.write_bytes(content)
    message = complaint(place, VMRUNNER_CONFIG=str(file))
    assert message is None or all(str(file) in line for line in message.splitlines())


def complaint(place: Path, **environ: str) -> str | None:
    """What is said of it; None when it can be used."""
    try:
        loaded = sources.load(environ=environ, start=place)
    except ConfigError as error:
        return str(error)
    paths(loaded.settings)
    loaded.rows()
    sources.dump(loaded.settings)
    return None


@settings(max_examples=150, deadline=None)
@given(SECTIONS | st.dictionaries(names, tables, max_size=4))
@example({"providers": {"local": {"kind": ["qemu"]}}})
@example({"providers": {"local": {"kind": {}}}})
@example({"providers": {"x": 1}})
@example({"default_provider": {"\x85": "qemu"}})
@example({"database": {"url": "postgresql://u:pw@h:port/x"}})
@example({"database": {"url": "sqlite:///"}})
@example({"database": {"url": "sqlite:////"}})
@example({"limits": {"max_ttl": float("nan")}})
@example({"limits": {"max_instances": 1 << 70}})
@example({"default_provider": ""})
@example({"": {"": 1}})
def test_any_table_is_settings_or_one_error_naming_its_key(
    place: Path, table: dict[str, Any]
) -> None:
    text = "\n".join(f"{inline(key)} = {inline(value)}" for key, value in table.items())
    check(place, text.encode(errors="surrogatepass"))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
@example(b"a = " + b"[" * 5000)
@example(b"a = 1979-05-27T07:32:00Z")
@example(b"\xff")
@example(b"a." * 3000 + b"b = 1")
@example(b"# " + b"x" * (1 << 20))
def test_any_bytes_are_settings_or_one_error_with_the_file(place: Path, content: bytes) -> None:
    check(place, content)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["LIMITS__MAX_TTL", "PROVIDERS__LOCAL__KIND", "PROVIDERS", "SECRET_KEY", "X"])
    | st.text(st.characters(codec="ascii"), max_size=12),
    st.sampled_from(["[", "{", "[]", "{}", "1", "-", "[" * 3000]) | st.text(max_size=8),
)
def test_any_variable_is_a_setting_or_one_error_naming_it(
    place: Path, name: str, value: str
) -> None:
    (place / "empty.toml").write_text("")
    empty = str(place / "empty.toml")
    message = complaint(place, VMRUNNER_CONFIG=empty, **{f"VMRUNNER_{name}": value})
    shown = f"VMRUNNER_{name}"
    assert message is None or (shown in message or repr(shown) in message), message
    assert message is None or "\n" not in message
