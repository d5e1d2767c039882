"""SIGTERM breaks off what must tidy up."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from vmrunner.cli import exit_codes
from vmrunner.cli.signals import tidied_up


def test_sigterm_tidies_up_and_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = tmp_path / "part"

    def work() -> None:
        part.write_text("half")
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            part.unlink()

    with pytest.raises(exit_codes.ExitNow) as exit_info, tidied_up("all is kept"):
        work()
    assert exit_info.value.code == exit_codes.TERMINATED
    assert not part.exists()
    assert "ended by SIGTERM: all is kept" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ctrl_c_stays_what_it_is() -> None:
    with pytest.raises(KeyboardInterrupt), tidied_up(""):
        raise KeyboardInterrupt
