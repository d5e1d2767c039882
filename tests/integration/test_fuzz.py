"""The properties of what reads a guest's words, tried for minutes: `make soak`.

Each found a fault once, or stands where one was found; what was found is an example of the short
test that it is taken from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.lib import test_ci_commands as test_disarm
from tests.unit.lib import test_globs, test_masking, test_terminal
from vmrunner.lib.terminal import Colours

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

TEXT = {"text": test_disarm.TEXTS}
CUT = {**TEXT, "cuts": st.lists(st.integers(0, 60), max_size=10)}
PIECES = st.lists(test_disarm.TEXTS | st.just("::endgroup::\n") | st.none(), max_size=6)
PROPERTIES: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any], int]] = {
    "GitHub": (test_disarm.test_no_line_is_a_command_for_github, {}, TEXT, 100_000),
    "GitHub, cut": (
        test_disarm.test_any_split_shows_the_same,
        {"system": "github"},
        CUT,
        50_000,
    ),
    "GitHub, between": (
        test_disarm.test_what_comes_between_begins_no_command,
        {},
        {"pieces": PIECES, "timestamps": st.booleans()},
        20_000,
    ),
    "terminal": (
        test_terminal.test_a_terminal_gets_colours_and_text_only,
        {},
        {"text": test_terminal.TEXTS},
        100_000,
    ),
    "terminal, cut": (
        test_terminal.test_any_split_shows_the_same,
        {"make": Colours},
        {**CUT, "text": test_terminal.TEXTS},
        50_000,
    ),
    "masking": (
        test_masking.test_a_new_masker_goes_on_where_the_old_one_decided,
        {},
        {"text": test_masking.LETTERS, "secrets": test_masking.SECRETS, "cuts": test_masking.CUTS},
        50_000,
    ),
    "masking, lines": (
        test_masking.test_an_encoding_is_masked_over_the_ends_of_lines,
        {},
        {"made": test_masking.wrapped(), "cuts": test_masking.CUTS},
        10_000,
    ),
    "globs": (
        test_globs.test_the_host_matches_what_the_guest_finds,
        {},
        {
            "paths": st.lists(test_globs.PATHS, max_size=8),
            "globs": st.lists(test_globs.GLOBS, min_size=1, max_size=3),
        },
        20_000,
    ),
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_holds_for_long(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "between" in name:
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
    test, fixed, drawn, examples = PROPERTIES[name]
    inner = test.hypothesis.inner_test  # type: ignore[attr-defined]

    def body(**values: Any) -> None:
        inner(**fixed, **values)

    given(**drawn)(
        settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))(
            body
        )
    )()
