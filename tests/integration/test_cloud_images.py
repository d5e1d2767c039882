"""`vmrunner image build --provider aws` at the local endpoint, with a stand-in for Packer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import image_cli as imageshell
from tests.support.ec2 import INSTALLATION, REGION, Amazon
from tests.support.ec2 import aws as aws  # the fixture
from tests.support.fake_packer import UNTAGGED, Packer
from tests.support.fake_packer import packer as packer  # the fixture
from tests.support.image_cli import Cli, configure, declared, gone
from tests.support.image_cli import cli as cli  # the fixture
from tests.support.image_cli import config as config  # the fixture
from tests.support.stand_ins import until
from vmrunner.providers.port_images import FINISH_BY, OWNER

BUILD = ("image", "build", "--provider", "aws")


def left(aws: Amazon) -> list[str]:
    """What Packer made for its own use, and did not take away."""
    backend = aws.cloud.backend(REGION)
    groups = [g.name for by_id in backend.groups.values() for g in by_id.values()]
    return [m.id for m in aws.cloud.alive] + [
        name for name in (*backend.key_pairs, *groups) if name.startswith("packer_")
    ]


def test_an_image_is_made_recorded_and_tagged(aws: Amazon, cli: Cli, packer: Packer) -> None:
    began = time.monotonic()
    done = cli(*BUILD, "-o", "json")
    assert done.code == 0, done.err
    (image,) = done.items
    assert b"image: Launching a source AWS instance... took" in done.err
    ami = aws.cloud.backend(REGION).amis[image["ref"]]
    assert (image["state"], image["name"], image["provider"]) == ("ready", "default", "aws")
    assert (image["title"], image["promoted_at"]) == (ami.name, None)
    assert image["snapshots"] == [ami.ebs_snapshot.id]
    assert image["builder_gone_at"] is not None
    (machine,) = aws.cloud.machines
    assert machine.tags["vmrunner:installation"] == INSTALLATION
    assert (machine.tags["vmrunner:role"], machine.tags["Name"]) == ("image", image["builder"])
    assert machine.tags["vmrunner:instance"] == image["builder"]
    assert machine.tags["vmrunner:build"] == image["id"]
    # The cloud's clock stands still; ours went on while the program was starting.
    life = int(machine.tags["vmrunner:expires-at"]) - aws.cloud.now()
    assert 3000 < life <= 3600 + time.monotonic() - began
    # Nothing that reaps may take the image, or its snapshot, for a VM's.
    for marked in (ami, ami.ebs_snapshot):
        tags = {tag["key"]: tag["value"] for tag in marked.get_tags()}
        assert tags[OWNER] == INSTALLATION
        assert not {"vmrunner:installation", "vmrunner:role", "vmrunner:expires-at"} & tags.keys()
        assert FINISH_BY not in tags
    assert left(aws) == []
    assert cli.images() == [image]
    assert cli("audit").code == 0
    assert [run["argv"][0] for run in packer.runs] == ["init", "build"]
    promoted = cli("image", "promote", image["id"][3:28])
    assert (promoted.code, image["ref"].encode() in promoted.err) == (0, True)
    assert b"warning" not in promoted.err
    assert cli.images()[0]["promoted_at"] is not None
    assert b"promoted" in cli("image", "ls").out


def test_packer_is_told_all_that_the_templates_take(home: Path, cli: Cli, packer: Packer) -> None:
    recipe = home / "mine.toml"
    recipe.write_text(
        'name = "mine"\ndisk = "20GiB"\n[docker]\nuserns = true\naddress_pool = "10.99.0.0/16"\n'
        'registry_mirror = "https://mirror.example"\n[[containers]]\nname = "debian:trixie"\n'
    )
    words = (*BUILD, str(recipe), "--ttl", "30m", "--base", "ubuntu-24.04")
    assert cli(*words).code == 0
    variables = packer.variables
    assert variables.keys() <= declared()
    assert (variables["userns"], variables["address_pool"]) == (True, "10.99.0.0/16")
    assert (variables["disk_gib"], variables["registry_mirror"]) == (20, "https://mirror.example")
    assert variables["max_run_seconds"] == 1800
    assert variables["base"] == "ubuntu-24.04"
    assert variables["aws_region"] == REGION
    assert variables["image_name"].startswith(f"vmrunner-mine-{variables['recipe_hash'][:8]}-")
    assert int(variables["run_tags"]["vmrunner:expires-at"]) == int(variables["created"]) + 1800
    run = packer.runs[-1]
    assert "supervisor/supervisor" in run["stage"]
    assert "supervisor/guest/supervisor.py" in run["stage"]
    assert {"containers.json", "image.json", "packages.txt"} <= set(run["stage"])
    assert "-only=amazon-ebs.vmrunner" in run["argv"]
    head, *_ = run["user_data"].split("vmrunner-deadline E TTL")
    assert head.startswith("#cloud-config\nbootcmd:")
    assert run["user_data"].count(variables["run_tags"]["vmrunner:expires-at"]) == 1


def test_a_configured_subnet_and_group_are_the_builders_too(
    aws: Amazon, home: Path, cli: Cli, packer: Packer
) -> None:
    subnet, group = aws.site.subnets[1], aws.site.security_group
    configure(home, aws, subnets=f'["{subnet}"]', security_groups=f'["{group}"]')
    assert cli(*BUILD).code == 0
    assert packer.variables["aws_subnet_id"] == subnet
    assert packer.variables["aws_security_group_id"] == group
    assert aws.cloud.count("CreateSecurityGroup") == 0


def test_without_packer_nothing_is_started(
    aws: Amazon, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmrunner.images.cloud.packer.which", lambda _: None)
    done = cli(*BUILD)
    assert done.code == 2
    assert b"packer: not on PATH" in done.err
    assert b"developer.hashicorp.com/packer/install" in done.err
    assert cli.images() == []
    assert aws.cloud.machines == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--provider", "local"), b"provider: local keeps no images in a cloud"),
        (("--provider", "aws", "--ttl", "5h"), b"--ttl: 18000 s"),
        (("--provider", "aws", "--ttl", "10s"), b"--ttl: 10 s"),
        (("--provider", "aws", "--base", "beos"), b"--base: 'beos'"),
        (("--provider", "aws", "--fresh"), b"--fresh: only for local images"),
        (("--ttl", "1h"), b"--ttl: only for images in a cloud"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_started(
    aws: Amazon, cli: Cli, packer: Packer, argv: tuple[str, ...], message: bytes
) -> None:
    done = cli("image", "build", *argv)
    assert (done.code, message in done.err) == (2, True), done.err
    assert not packer.log.exists()
    assert cli.images() == []


def test_a_failure_shows_packers_words_and_leaves_nothing(
    aws: Amazon, cli: Cli, packer: Packer
) -> None:
    packer.does("fail")
    done = cli(*BUILD)
    assert done.code == 1
    assert b"Script exited with non-zero exit status: 100" in done.err
    (image,) = cli.images()
    assert (image["state"], image["ref"]) == ("failed", None)
    assert "packer failed with 1" in image["message"]
    assert image["builder_gone_at"] is not None
    assert left(aws) == []


def test_plugins_that_are_not_to_be_had_leave_no_row(cli: Cli, packer: Packer) -> None:
    packer.does("init")
    done = cli(*BUILD)
    assert done.code == 1
    assert b"Missing plugins" in done.err
    assert cli.images() == []


def started(config: Path, aws: Amazon) -> subprocess.Popen[bytes]:
    """`image build` whose Packer waits for ever."""
    return imageshell.started(config, BUILD, lambda: aws.cloud.alive)


def test_ctrl_c_lets_packer_clean_up(aws: Amazon, config: Path, cli: Cli, packer: Packer) -> None:
    packer.does("hang")
    process = started(config, aws)
    imageshell.interrupted(process)
    assert gone(packer.runs[-1]["pid"])
    assert left(aws) == []
    (image,) = cli.images()
    assert (image["state"], image["message"]) == ("failed", "interrupted")
    assert image["builder_gone_at"] is not None


def test_a_second_ctrl_c_does_not_wait_for_packer(
    aws: Amazon, config: Path, cli: Cli, packer: Packer
) -> None:
    packer.does("stuck")
    process = started(config, aws)
    process.send_signal(signal.SIGINT)
    until(lambda: packer.received_signal("SIGINT"), seconds=30)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    os.kill(packer.runs[-1]["pid"], signal.SIGKILL)  # within five minutes its guard would
    assert process.returncode == 130, err
    assert aws.cloud.alive == []
    assert cli.images()[0]["builder_gone_at"] is not None


def test_what_packer_left_on_interrupt_is_ended_at_once(
    aws: Amazon, config: Path, cli: Cli, packer: Packer
) -> None:
    packer.does("deaf")
    process = started(config, aws)
    imageshell.interrupted(process)
    assert aws.cloud.alive == []
    (image,) = cli.images()
    assert image["builder_gone_at"] is not None


def test_after_a_kill_9_packer_still_cleans_up(
    aws: Amazon, config: Path, cli: Cli, packer: Packer
) -> None:
    packer.does("hang")
    process = started(config, aws)
    imageshell.killed(process, packer)
    assert left(aws) == []
    aws.clock.advance(3700)
    cli("reap")
    assert cli.images()[0]["state"] == "failed"


def test_kill_9_ends_packer_and_the_reaper_ends_its_builder(
    aws: Amazon, config: Path, cli: Cli, packer: Packer
) -> None:
    packer.does("deaf")
    process = started(config, aws)
    imageshell.killed(process, packer)
    (builder,) = aws.cloud.alive
    assert cli("reap", "-o", "json").items == []  # neither orphan nor left over
    aws.clock.advance(1800)
    assert cli("reap", "-o", "json").items == []
    assert cli("audit").code == 0
    (image,) = cli.images()
    assert (image["state"], image["builder_gone_at"]) == ("building", None)
    aws.clock.advance(1800 + 61)
    assert [s["fault"] for s in cli("audit", "-o", "json").items] >= ["past_deadline"]
    killed = cli("reap", "-o", "json").items
    assert (builder.id, "expired") in [(line["id"], line["reason"]) for line in killed]
    assert aws.cloud.alive == []
    cli("reap")
    (image,) = cli.images()
    assert image["state"] == "failed"
    assert image["builder_gone_at"] is not None
    assert left(aws) == []  # its key and its group, once it was gone
    assert cli("audit").code == 0


def test_a_group_goes_only_once_its_builder_is_gone(
    aws: Amazon, config: Path, cli: Cli, packer: Packer
) -> None:
    packer.does("deaf")
    process = started(config, aws)
    imageshell.killed(process, packer)
    aws.clock.advance(3700)
    aws.cloud.delete_seconds = 120.0
    assert {line["kind"] for line in cli("reap", "-o", "json").items} == {"instance"}
    assert len(left(aws)) == 2  # the machine shuts down
    aws.clock.advance(121)
    done = cli("reap", "-o", "json")
    assert (done.code, {line["kind"] for line in done.items}) == (0, {"key", "security_group"})
    assert left(aws) == []


def test_foreign_packer_leftovers_are_told_and_never_deleted(
    aws: Amazon, config: Path, cli: Cli, packer: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(UNTAGGED, "1")
    packer.does("deaf")
    process = started(config, aws)
    imageshell.killed(process, packer)
    aws.clock.advance(3500)
    assert {s["fault"] for s in cli("audit", "-o", "json").items} <= {"not_there"}
    aws.clock.advance(400)  # the host's clock, which Packer names things by, went on beside
    items = cli("audit", "-o", "json").items
    assert {(s["fault"], s["kind"]) for s in items if s["fault"] == "untagged"} == {
        ("untagged", "instance"),
        ("untagged", "key"),
        ("untagged", "security_group"),
    }
    assert all("in a Packer build" in s["message"] for s in items)
    before = left(aws)
    cli("reap")
    assert left(aws) == before


def test_an_image_is_found_if_vmrunner_died_after_packer(
    aws: Amazon, cli: Cli, packer: Packer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vmrunner.ledger.images import Images

    def dies(*_: object) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as crash:
        crash.setattr(Images, "ready", dies)
        crash.setattr(Images, "fail", dies)
        crash.setattr(Images, "close", dies)
        with pytest.raises(SystemExit):
            cli(*BUILD)
    (image,) = cli.images()
    assert image["state"] == "building"
    aws.clock.advance(3700)
    cli("reap")
    (image,) = cli.images()
    assert image["state"] == "ready"
    assert image["ref"] in aws.cloud.backend(REGION).amis
    assert image["builder_gone_at"] is None  # nobody saw it dead, and EC2 has forgotten it
    aws.clock.advance(900)
    cli("reap")
    assert cli.images()[0]["builder_gone_at"] is not None


def test_stage_fills_a_directory_for_packer_by_hand(tmp_path: Path, cli: Cli) -> None:
    directory = tmp_path / "stage"
    done = cli("image", "stage", str(directory))
    assert done.code == 0, done.err
    manifest = json.loads((directory / "image.json").read_text())
    assert done.out.decode().strip() == manifest["hash"]
    assert os.access(directory / "supervisor" / "supervisor", os.X_OK)
    (container,) = json.loads((directory / "containers.json").read_text())
    assert container.keys() == {"name", "pull", "suite", "packages", "command", "env"}
    assert "openssh-server" in (directory / "packages.txt").read_text().splitlines()
    again = cli("image", "stage", str(directory))
    assert (again.code, b"is not empty" in again.err) == (2, True)
