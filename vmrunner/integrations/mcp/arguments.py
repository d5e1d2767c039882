"""Arguments of tools: what a model names wrongly is refused, in words from which it learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import ToolAnnotations
from pydantic import ValidationError

from vmrunner.config.fault_words import in_words, written
from vmrunner.lib import units


class StrictTool(Tool):
    """A tool that takes the arguments of its schema and no others."""

    @classmethod
    def of(cls, work: Callable[..., Any], annotations: ToolAnnotations) -> Self:
        """Return the tool that a function is."""
        made = cls.from_function(work, annotations=annotations)
        model = made.fn_metadata.arg_model
        model.model_config = {**model.model_config, "extra": "forbid"}
        model.model_rebuild(force=True)
        made.parameters = model.model_json_schema(by_alias=True)
        return made  # type: ignore[return-value]  # of the class that it is called on

    async def run(
        self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False
    ) -> Any:
        try:
            self.fn_metadata.validate_arguments(arguments)
        except ValidationError as error:
            raise ToolError(explained(error, list(self.parameters["properties"]))) from None
        return await super().run(arguments, context, convert_result=convert_result)


def explained(error: ValidationError, names: list[str]) -> str:
    """A line for each argument that is wrong, with its fix."""
    lines = []
    for fault in error.errors(include_url=False):
        name = ".".join(map(str, fault["loc"]))
        if fault["type"] == "extra_forbidden":
            lines.append(f"{name}: no such argument ({_nearest(name, names)})")
            continue
        text, fix = in_words(fault)
        value = "" if fault["type"] == "missing" else f" {written(fault['input'])}:"
        lines.append(f"{name}:{value} {text}" + (f" ({fix})" if fix else ""))
    return "; ".join(lines)


def _abbreviates(word: str, name: str) -> bool:
    """True if a name has all letters of a word, in their order: cmd, command."""
    letters = iter(name)
    return len(word) > 2 and all(letter in letters for letter in word)


def _nearest(name: str, names: list[str]) -> str:
    """Return the argument that was meant, else all that there are."""
    word = name.lower().replace("-", "_")
    alike = [other for other in names if word.startswith(other) or _abbreviates(word, other)]
    return f"did you mean {alike[0]!r}?" if alike else units.did_you_mean(word, names)
