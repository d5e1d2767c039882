"""Images by the digests that nodes tell, in the spellings of their runtimes."""

from __future__ import annotations

import pytest

from vmrunner.providers.kubernetes.image_ids import pinned

DIGEST = f"sha256:{'a1' * 32}"


@pytest.mark.parametrize(
    ("image", "image_id", "found"),
    [
        ("debian:trixie", "docker.io/library/debian@", "debian@"),
        ("debian", "docker.io/library/debian@", "debian@"),
        ("docker.io/debian:1", "docker.io/library/debian@", "docker.io/debian@"),
        ("index.docker.io/debian", "docker.io/library/debian@", "index.docker.io/debian@"),
        ("index.docker.io/some/app:1", "docker.io/some/app@", "index.docker.io/some/app@"),
        ("some/app:1", "docker-pullable://some/app@", "some/app@"),
        ("localhost/app:1", "localhost/app@", "localhost/app@"),
        ("10.0.0.1:5000/a/b:tag", "10.0.0.1:5000/a/b@", "10.0.0.1:5000/a/b@"),
        ("10.0.0.1:5000/b", "10.0.0.1:5000/b@", "10.0.0.1:5000/b@"),
    ],
)
def test_a_tag_becomes_the_digest_that_the_node_pulled(
    image: str, image_id: str, found: str
) -> None:
    assert pinned(image, image_id + DIGEST) == found + DIGEST


@pytest.mark.parametrize(
    "image_id",
    [
        "",
        DIGEST,  # of a configuration: it was loaded into the node
        f"docker.io/library/import-2026-12-01@{DIGEST}",
        f"registry.example/debian@{DIGEST}",  # other bytes may be there under that name
        "docker.io/library/debian@sha256:a1",
        f"docker.io/library/debian@{DIGEST}\n",
        f"docker.io/library/debian@{DIGEST}@{DIGEST}",
        f"docker.io/library/debian@{DIGEST.upper()}",
    ],
)
def test_what_its_own_registry_may_lack_pins_nothing(image_id: str) -> None:
    assert pinned("debian:trixie", image_id) is None


@pytest.mark.parametrize("image", [f"debian@{DIGEST}", f"debian:trixie@{DIGEST}"])
def test_a_digest_stays_as_the_pod_has_it(image: str) -> None:
    """Also one that the cluster has added to a tag. Until it has begun it may become another."""
    assert pinned(image, f"docker.io/library/debian@{DIGEST}") == image
    assert pinned(image, "") is None
