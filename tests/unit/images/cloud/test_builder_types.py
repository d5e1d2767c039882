"""Images are x86-64: a builder that is not is refused before anything is fetched or made."""

from __future__ import annotations

import pytest

from vmrunner.errors import ConfigError
from vmrunner.images.cloud import builder
from vmrunner.model import Scope
from vmrunner.providers.port_images import BuilderSpec

ARM = ["a1.medium", "t4g.small", "m7g.large", "c7gn.xlarge", "m8gd.large", "im4gn.large"]
ARM += ["x2gd.medium", "g5g.xlarge", "hpc7g.16xlarge", "t2a-standard-4", "c4a-standard-8", "n4a-x"]
X86 = ["m7i.large", "m7i-flex.large", "c5.large", "g5.xlarge", "g4dn.xlarge", "gr6.4xlarge"]
X86 += ["t3a.medium", "u-6tb1.metal", "x2iedn.large", "e2-standard-4", "n4-standard-2", "a2-x", ""]


def bench(variable: str, name: str) -> BuilderSpec:
    return BuilderSpec(
        source="x", scope=Scope("x", "y", "z"), variables={variable: name}, environment={}
    )


@pytest.mark.parametrize("name", ARM)
def test_an_arm64_builder_is_refused_with_the_fix(name: str) -> None:
    variable = "gce_machine_type" if "-" in name else "aws_instance_type"
    with pytest.raises(ConfigError, match=f"machine type {name} is an arm64 one") as caught:
        builder._check_machine(bench(variable, name))
    assert caught.value.hint


@pytest.mark.parametrize("name", X86)
def test_any_other_is_taken(name: str) -> None:
    builder._check_machine(bench("aws_instance_type", name))
