"""YAML that is read as people mean it: no surprises of YAML 1.1, and the line of every value.

`no`, `on` and `12:30` are text, only `true` and `false` are booleans; a key that comes twice is an
error; aliases cannot blow up.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import yaml as pyyaml

from vmrunner.config.validation_errors import Where
from vmrunner.errors import ConfigError

MAX_BYTES: Final = 1 << 20
MAX_NODES: Final = 20_000
#: … that mappings have which `<<` brings, each as often as it does; most of them may be overridden.
MAX_MERGED: Final = 10 * MAX_NODES

_NULL = re.compile(r"(?:~|null|Null|NULL|)", re.ASCII)
_TRUE = re.compile(r"(?:true|True|TRUE)", re.ASCII)
_FALSE = re.compile(r"(?:false|False|FALSE)", re.ASCII)
_INT = re.compile(r"[-+]?[0-9]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)

_STR: Final = "tag:yaml.org,2002:str"
_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{tag}"
    for tag in ("null", "bool", "int", "float", "str", "timestamp", "merge", "value")
)


def parse(
    text: bytes, name: str, *, raw: Callable[[Where], bool] = lambda _: False
) -> tuple[Any, dict[Where, int]]:
    """The document, and the line (from 1) of every value by its path. At a path that `raw` picks,
    a plain scalar is text as it is written. `ConfigError` says NAME:LINE."""
    if len(text) > MAX_BYTES:
        raise ConfigError(
            f"{name}: larger than {MAX_BYTES >> 20} MiB", hint="is it the right file?"
        )
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(f"{name}: empty", hint="see docs/cli.md for the shape of it")
        reader = _Reader(name, raw, loader)
        return reader.value(node, ()), reader.lines
    except pyyaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{name}:{line}: not valid YAML: {error.problem}") from None
    except (pyyaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{name}: not valid YAML: {first}") from None


class _Loader(pyyaml.SafeLoader):
    """PyYAML's, with a bound on merges: a mapping is gone through whenever it is merged, though
    nothing of it may be left."""

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self._merged = 0

    def flatten_mapping(self, node: pyyaml.MappingNode) -> None:
        super().flatten_mapping(node)
        self._merged += len(node.value)
        if self._merged > MAX_MERGED:
            raise pyyaml.MarkedYAMLError(
                problem=f"merged too often: more than {MAX_MERGED} values all in all",
                problem_mark=node.start_mark,
            )


class _Reader:
    def __init__(self, name: str, raw: Callable[[Where], bool], loader: pyyaml.SafeLoader) -> None:
        self._name = name
        self._raw = raw
        self._loader = loader
        self._count = 0
        self._open: set[int] = set()
        self.lines: dict[Where, int] = {}

    def value(self, node: pyyaml.Node, at: Where) -> Any:
        self.lines.setdefault(at, node.start_mark.line + 1)
        self._count += 1
        if id(node) in self._open:
            raise self._error(node, "an alias makes it endless")
        if self._count > MAX_NODES:
            raise self._error(
                node,
                f"too large: more than {MAX_NODES} values, with what aliases stand for",
            )
        if isinstance(node, pyyaml.ScalarNode):
            return self._scalar(node, at)
        self._open.add(id(node))
        try:
            if isinstance(node, pyyaml.SequenceNode):
                return [self.value(item, (*at, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, pyyaml.MappingNode)
            return self._mapping(node, at)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: pyyaml.MappingNode, at: Where) -> dict[str, Any]:
        own = Counter(key.value for key, _ in node.value if isinstance(key, pyyaml.ScalarNode))
        table: dict[str, Any] = {}
        for key, _ in node.value:
            if not isinstance(key, pyyaml.ScalarNode):
                raise self._error(key, "a key must be text")
            if own[key.value] > 1:
                raise self._error(key, f"{key.value!r} is there twice")
        self._loader.flatten_mapping(node)  # `<<: *defaults`; what is written here wins
        for key, value in node.value:
            where = (*at, str(key.value))
            self.lines[where] = key.start_mark.line + 1
            table[str(key.value)] = self.value(value, where)
        return table

    def _scalar(self, node: pyyaml.ScalarNode, at: Where) -> Any:
        text = str(node.value)
        if node.tag not in _TAGS:
            raise self._error(node, f"no tag {node.tag!r} is known here")
        if node.style is not None or node.tag == _STR:
            return text  # quoted, a block, or nothing else in any YAML
        if self._raw(at):
            return text
        if _NULL.fullmatch(text):
            return None
        if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
            return text.lower() == "true"
        if _INT.fullmatch(text):
            return int(text) if len(text) < 20 else text
        return float(text) if _FLOAT.fullmatch(text) else text

    def _error(self, node: pyyaml.Node, message: str) -> ConfigError:
        return ConfigError(f"{self._name}:{node.start_mark.line + 1}: {message}")
