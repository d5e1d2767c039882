"""Former place of the local clouds, which are the distribution vmrunner-localclouds now.

The names of before work where that is installed: `vmrunner.testing.localec2` *is*
`vmrunner_localclouds.ec2`, as are its modules, and `python -m` knows both. Elsewhere an import says
what to install.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Final

_HOME: Final = "vmrunner_localclouds"
#: Packages whose names were others here.
_RENAMED: Final = {"localazure": "azure", "localec2": "ec2", "localgce": "gce"}


class _Moved(MetaPathFinder, Loader):
    """An importer that gives a name of before the module of today, not a second copy of it."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if not name.startswith(f"{__name__}."):
            return None
        now = _now(name)
        if importlib.util.find_spec(_HOME) is None:
            raise ModuleNotFoundError(
                f"{name} is {now} of another distribution now: pip install vmrunner-localclouds",
                name=name,
            )
        found = importlib.util.find_spec(now)
        if found is None:
            return None
        warnings.warn(f"{name} is {now} now", DeprecationWarning, stacklevel=2)
        return ModuleSpec(name, self, is_package=found.submodule_search_locations is not None)

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(_now(module.__name__))

    def get_code(self, name: str) -> CodeType | None:
        """The code that `python -m` runs."""
        found = importlib.util.find_spec(_now(name))
        assert found is not None
        assert isinstance(found.loader, InspectLoader)
        return found.loader.get_code(_now(name))


def _now(name: str) -> str:
    """Return today's name of a module."""
    cloud, dot, rest = name.removeprefix(f"{__name__}.").partition(".")
    return f"{_HOME}.{_RENAMED.get(cloud, cloud)}{dot}{rest}"


# First, since the path finder would load a module of such a package again, by its former name.
sys.meta_path.insert(0, _Moved())
