"""Commands that take another after `--`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class WithCommand(TyperCommand):
    """A command for which all that stands after `--` is the user's, word by word, and never
    an option of ours."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            cut = args.index("--")
            ctx.meta["command"] = args[cut + 1 :]
            args = args[:cut]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- CMD…]"]
