"""The templates that `image build` makes beside its image."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vmrunner.cli.commands import image_template
from vmrunner.cli.context import CliContext


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_an_image_that_is_built_needs_no_template(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """A full disk, or a cache that is another's."""

    def make(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(image_template, "make", make)
    image_template.make_defaults(cast(CliContext, SimpleNamespace(app=_app())))
    assert os.strerror(number) in capsys.readouterr().err


def test_builds_and_sandboxes_have_templates_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox has no network unless it says so."""
    requests: list[dict[str, Any]] = []
    monkeypatch.setattr(image_template, "make", lambda _, values, __: requests.append(values))
    image_template.make_defaults(cast(CliContext, SimpleNamespace(app=_app())))
    assert requests == [{}, {"network": "none"}]


def _app() -> SimpleNamespace:
    provider = SimpleNamespace(template_maker=list, wanted_templates=list)
    return SimpleNamespace(
        providers=SimpleNamespace(get=lambda _: provider),
        settings=SimpleNamespace(provider=lambda _: "local"),
    )
