"""Planted bugs in the making of local images."""

from __future__ import annotations

from typing import Final

from bench.planted import Bug

DOWNLOADS: Final = "tests/unit/images/local/test_shared_downloads.py"
STORE: Final = "tests/unit/images/local/test_docker_store.py"
LAYERS: Final = "images/local/layers.py"

#: Of Docker's store, which is written without a Docker.
BUGS: Final = (
    Bug(
        "image: a layer names what lies above it",
        LAYERS,
        'if ".." in parts or "\\0" in name:',
        'if "\\0" in name:',
        f"{STORE}::test_what_leads_out_of_a_layer_is_refused",
    ),
    Bug(
        "image: a layer writes through a link",
        LAYERS,
        "            elif kind != tarfile.DIRTYPE:\n",
        "            elif kind == tarfile.REGTYPE:\n",
        f"{STORE}::test_what_leads_out_of_a_layer_is_refused",
    ),
    Bug(
        "image: a hard link to a file of the VM's",
        LAYERS,
        "self.kinds.get(target, tarfile.DIRTYPE) == tarfile.DIRTYPE",
        "self.kinds.get(target) == tarfile.DIRTYPE",
        f"{STORE}::test_what_leads_out_of_a_layer_is_refused",
    ),
    Bug(
        "image: what a layer removed is seen again",
        LAYERS,
        'self.xattrs.append(Xattr(path, "trusted.overlay.opaque", "y"))',
        "pass",
        f"{STORE}::test_a_layer_on_others_hides_what_it_removed",
    ),
    Bug(
        "image: padding is no part of a layer's record",
        LAYERS,
        "self.raw += self._read(padded(size) - size)",
        "self._read(padded(size) - size)",
        f"{STORE}::test_a_layer_can_be_told_again_byte_by_byte",
    ),
    Bug(
        "image: a layer is taken as its image names it",
        "images/local/docker_store.py",
        "if layer.diff != diff:",
        "if False:",
        f"{STORE}::test_a_layer_other_than_its_image_says_is_refused",
    ),
    Bug(
        "image: the time left has no templates in it",
        "cli/image_progress.py",
        "plan = (*plan, *((stage,) for stage in self._later))",
        "plan = (*plan,)",
        "tests/unit/cli/test_image_progress.py::test_what_comes_after_the_image_is_in_its_time",
    ),
    Bug(
        "image: what two roots need is fetched twice",
        "images/local/shared_downloads.py",
        "if found is None or found.failed:",
        "if True:",
        f"{DOWNLOADS}::test_what_two_ask_for_is_fetched_once",
    ),
    Bug(
        "image: a download that failed is given up for good",
        "images/local/shared_downloads.py",
        "if found is None or found.failed:",
        "if found is None:",
        f"{DOWNLOADS}::test_what_was_cut_off_is_fetched_again",
    ),
    Bug(
        "image: whoever is on this host fetches by our proxy",
        "images/local/shared_downloads.py",
        'if not hmac.compare_digest(self.headers.get("Proxy-Authorization", ""), expected):',
        "if not expected:",
        f"{DOWNLOADS}::test_others_on_this_host_have_no_use_of_it",
    ),
)
