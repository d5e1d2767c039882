"""Durations, sizes and pairs, as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrunner.errors import ConfigError
from vmrunner.lib import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800),
        ("1h30m", 5400),
        ("90s", 90),
        ("90", 90),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("250ms", 0.25),
        (" 5M ", 300),
        (45, 45),
        (0.5, 0.5),
        (timedelta(minutes=2), 120),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert units.duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "", "soon", "5 minutes", "-5m", "1h-5m", "m", "1:30", "nan", "inf", True, None, "٣s",
        10**400, "9" * 400,
    ],
)  # fmt: skip
def test_what_is_no_duration_says_field_value_and_fix(text: object) -> None:
    with pytest.raises(ConfigError) as caught:
        units.duration(text, "timeout")
    shown = f"{text[:40]!r}…" if isinstance(text, str) and len(text) > 64 else repr(text)
    assert str(caught.value).startswith(f"timeout: {shown} is not a duration (write it like")


@given(st.integers(min_value=0, max_value=10**7))
def test_an_exact_duration_reads_back(seconds: int) -> None:
    assert units.duration(units.exact(float(seconds))) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4GiB", 4 << 30),
        ("4G", 4 << 30),
        ("4g", 4 << 30),
        ("4GB", 4 * 1000**3),
        ("512MiB", 512 << 20),
        ("1.5GiB", 3 << 29),
        ("17", 17),
        ("17B", 17),
        (17, 17),
    ],
)
def test_sizes(text: object, count: int) -> None:
    assert units.size(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "", "big", "-4GiB", "4 gigs", "iB", "4iB", True, -1, 2.5, None,
        10**400, 1 << 63, "8EiB", "9" * 400, "9" * 400 + "GiB",
    ],
)  # fmt: skip
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ConfigError, match=r"^memory: .* is not a size \(write it like"):
        units.size(text, "memory")


@given(st.integers(min_value=0, max_value=1 << 32), st.sampled_from([0, 10, 20, 30]))
def test_an_exact_size_reads_back(count: int, shift: int) -> None:
    assert units.size(units.exact_size(count << shift)) == count << shift


def test_exact_sizes_for_people() -> None:
    shown = [units.exact_size(count) for count in (0, 1500, 1 << 10, 20 << 30, 1536 << 20)]
    assert shown == ["0", "1500", "1KiB", "20GiB", "1536MiB"]


def test_pairs_keep_what_follows_the_first_equals_sign() -> None:
    assert units.env("A=b=c") == ("A", "b=c")
    assert units.env("A=") == ("A", "")
    assert units.label("team/ci=core") == ("team/ci", "core")


@pytest.mark.parametrize("value", ["A", "=x", "1A=x", "A-B=x", "A B=x", "Ä=x", "A=\0"])
def test_bad_env(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^env: "):
        units.env(value)


@pytest.mark.parametrize("value", ["team", "=x", "a b=x", "-a=x", "a=\x1b[2J", f"a={'x' * 256}"])
def test_bad_labels(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^label: "):
        units.label(value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0s"),
        (9.4, "9.4s"),
        (41, "41s"),
        (187, "3m07s"),
        (3720, "1h02m"),
        (183_600, "2d03h"),
    ],
)
def test_spans_for_people(seconds: float, text: str) -> None:
    assert units.span(seconds) == text


def test_amounts_for_people() -> None:
    assert units.amount(17) == "17 B"
    assert units.amount(4 << 30) == "4.0 GiB"
    assert units.amount(3 << 40) == "3.0 TiB"


def test_a_label_has_one_value() -> None:
    assert units.labels(["a=1", "b=2", "a=1"]) == {"a": "1", "b": "2"}
    with pytest.raises(ConfigError, match=r"^label: 'a' is given as '1' and as '2'") as wrong:
        units.labels(["a=1", "a=2"])
    assert wrong.value.hint == "give one label a=VALUE"


def test_the_nearest_word_is_named() -> None:
    assert units.did_you_mean("timeuot", ["timeout", "ttl"]) == "did you mean 'timeout'?"
    assert units.did_you_mean("zzz", ["b", "a"]) == "one of: a, b"
