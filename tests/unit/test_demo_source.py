"""What `make demo` gives its VM: its source lies in a directory that this repository ignores."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from vmrunner.services import sources

ROOT = Path(__file__).parents[2]
DEMO = Path("examples/demo")
#: Ends the demo where it makes an image: no VM is wanted here.
VMRUNNER = "#!/bin/sh\nexit 75\n"
#: In place of pip: `… -d DIRECTORY … -r LIST` leaves there a file for each line of the list.
PYTHON = """#!/bin/sh
while [ $# -gt 0 ]; do case $1 in -d) to=$2;; -r) list=$2;; esac; shift; done
case $list in */sdist.txt) end=.tar.gz;; *) end=.whl;; esac
for name in $(sed -n 's/^\\([a-z][^ ]*\\)==\\([^ ]*\\) .*/\\1-\\2/p' "$list"); do
  echo fetched >"$to/$name$end"
done
"""


def test_all_that_the_demo_fetches_goes_into_its_vm(tmp_path: Path) -> None:
    shutil.copytree(ROOT / DEMO, tmp_path / DEMO)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name, text in (("python", PYTHON), ("vmrunner", VMRUNNER)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    done = subprocess.run([tmp_path / DEMO / "run"], capture_output=True, text=True)
    assert done.returncode == 75, done.stderr
    given = {file.path for file in sources.look(str(tmp_path / "demo-out/source"))}
    pinned = re.compile(r"^([a-z][^ =]*)==([^ ]+) ", re.MULTILINE)
    wanted = {".complete"}
    for name, place, end in (("sdist.txt", "", ".tar.gz"), ("wheels.txt", "wheels/", ".whl")):
        pins = pinned.findall((ROOT / DEMO / name).read_text())
        assert pins
        wanted |= {f"{place}{project}-{version}{end}" for project, version in pins}
    assert given == wanted
