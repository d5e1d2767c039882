"""What unit tests share."""

from __future__ import annotations

from tests.support.engine_parts import parts as parts  # the fixture
