"""What Packer says for machines, as progress and as an error."""

from __future__ import annotations

from vmrunner.images.cloud.packer import PackerOutput
from vmrunner.images.local.builder import Progress


class Told:
    def __init__(self) -> None:
        self.events: list[Progress] = []
        self.now = 0.0
        self.heard = PackerOutput(
            self.events.append, ("Launching", "Creating the AMI"), clock=lambda: self.now
        )

    def say(self, *lines: str) -> None:
        for line in lines:
            self.heard.line(line)
            self.now += 1


def test_what_packer_says_becomes_stages_and_their_messages() -> None:
    packer = Told()
    packer.say(
        "1700000000,,ui,say,==> amazon-ebs.vmrunner: Launching a source AWS instance...",
        "1700000001,,ui,message,    amazon-ebs.vmrunner: Instance ID: i-1%!(PACKER_COMMA) spot",
        "1700000002,,ui,say,==> amazon-ebs.vmrunner: Creating the AMI\\n",
    )
    packer.heard.end()
    packer.heard.end()
    assert [(e.stage, e.fraction, e.seconds, e.message) for e in packer.events] == [
        ("Launching a source AWS instance...", 0.0, 0.0, ""),
        ("Launching a source AWS instance...", None, 1.0, "Instance ID: i-1, spot"),
        ("Launching a source AWS instance...", 1.0, 2.0, ""),
        ("Creating the AMI", 0.0, 0.0, ""),
        ("Creating the AMI", 1.0, 1.0, ""),
    ]


def test_instant_work_is_no_stage_and_all_scripts_are_one() -> None:
    packer = Told()
    packer.say(
        "1,,ui,say,==> x.y: Prevalidating any provided VPC information",
        "1,,ui,say,==> x.y: Waiting for SSH to become available...",
        "1,,ui,say,==> x.y: Connected to SSH!",
        "1,,ui,say,==> x.y: Provisioning with shell script: /p/10-deadline.sh",
        "1,,ui,say,==> x.y: Provisioning with shell script: /p/20-base.sh",
        "1,,ui,say,==> x.y: Uploading stage => /tmp/x",
        "1,,ui,say,==> x.y: Deleting temporary keypair...",
    )
    packer.heard.end()
    assert [(e.stage, e.fraction, e.message) for e in packer.events] == [
        ("Waiting for SSH to become available...", 0.0, ""),
        ("Waiting for SSH to become available...", None, "Connected to SSH!"),
        ("Waiting for SSH to become available...", 1.0, ""),
        ("Provisioning", 0.0, ""),
        ("Provisioning", None, "Provisioning with shell script: /p/20-base.sh"),
        ("Provisioning", None, "Uploading stage => /tmp/x"),
        ("Provisioning", None, "Deleting temporary keypair..."),
        ("Provisioning", 1.0, ""),
    ]


def test_an_artifact_is_told_whole() -> None:
    packer = Told()
    packer.say(
        "1,amazon-ebs.vmrunner,artifact-count,1",
        "1,amazon-ebs.vmrunner,artifact,0,builder-id,mitchellh.amazonebs",
        "1,amazon-ebs.vmrunner,artifact,0,id,eu-west-1:ami-1%!(PACKER_COMMA)us-east-2:ami-2",
        "1,amazon-ebs.vmrunner,artifact,0,string,AMIs were created:\\neu-west-1: ami-1",
    )
    assert packer.heard.artifact == "eu-west-1:ami-1,us-east-2:ami-2"


def test_an_error_is_packers_own_or_else_its_last_words() -> None:
    packer = Told()
    packer.say(*(f"1,,ui,message,    x.y: line {number}" for number in range(20)))
    lines = packer.heard.message("packer build failed").splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("packer build failed", "    x.y: line 19", 13)
    packer.say("Error: Unsupported argument")  # before it speaks for machines
    assert packer.heard.message("x").endswith("Error: Unsupported argument")
    packer.say("1,x.y,error,Script exited with status: 1.\\nAllowed: [0%!(PACKER_COMMA) 2]")
    assert packer.heard.message("x") == "x\nScript exited with status: 1.\nAllowed: [0, 2]"


def test_lines_of_another_form_are_no_events() -> None:
    packer = Told()
    packer.say("", ",,,", "1,,ui", "1,,artifact,0", "x,y,ui,say,==> a: b", "1,,artifact,0,id")
    assert packer.events == []
    assert packer.heard.artifact is None
