"""User-data that makes a build VM of a plain Debian or Ubuntu: the same scripts that make our
images, and the supervisor."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from vmrunner.lib import resources

LIBRARY: Final = "/usr/lib/vmrunner"
OF_UNITS: Final = "beside.sh"  # in the line of the driver's that no VM needs
OF_TYPES: Final = ("__future__", "collections.abc", "typing")
#: What waits in a VM of our images before its build is known, for which a stock image has no time;
#: and what its user-data has no room for.
OF_OUR_IMAGES: Final = {
    "beside.py",
    "beside.sh",
    "runtime.py",
    "unit.py",
    "unit_files.py",
    "unit_launcher.py",
    "unit_lay.py",
    "unit_sshd.conf",
    "unit_sshd.sh",
    "unit_tars.py",
    "cache_archive.py",
    "caches.py",
    "command.py",
    "command_follower.py",
    "command_group.py",
    "command_records.py",
    "exit_events.py",
    "identity.py",
    "direct_start.py",
    "port_forward.py",
    "prestart.py",
    "warm_up.py",
    "daemon.py",
    "sandbox.sh",
    "sandbox_commands.py",
    "sandbox_files.py",
    "socket_answers.py",
    "preforked.py",
    "syscalls.py",
    "usage.py",
}


def modules() -> tuple[Sequence[list[str]], dict[str, Any]]:
    """Commands for cloud-init's `bootcmd`, and its other modules with what they take."""
    scripts = resources.path("packer") / "scripts"
    early = [
        # Without PAM sshd lets no locked account in, and an image of others may have locked root.
        ["usermod", "-p", "*", "root"],
        ["sh", "-c", without_comments((scripts / "20-ssh.sh").read_text())],
    ]
    here, guest = resources.path("cloud-init"), resources.GUEST
    names = {p.name for p in guest.glob("[!.]*.*")} - OF_OUR_IMAGES
    files = {f"guest/{name}": (guest / name).read_text() for name in sorted(names)}
    files["launcher"] = files.pop("guest/launcher.py")
    programs = [name for name in files if name == "launcher" or name.endswith(".py")]
    trees = {name: _Untyped().visit(ast.parse(files[name])) for name in programs}
    _drop_unused(list(trees.values()))
    for name, tree in trees.items():
        first = files[name].partition("\n")[0] + "\n" if name == "launcher" else ""
        files[name] = first + _lean(tree)
    files["supervisor"] = (here / "waiting.sh").read_text()
    files["bootstrap.sh"] = (here / "bootstrap.sh").read_text()
    files["docker.sh"] = (scripts / "40-docker.sh").read_text()
    driver = files["guest/driver.sh"].splitlines(keepends=True)
    files["guest/driver.sh"] = "".join(line for line in driver if OF_UNITS not in line)
    for name in ("guest/driver.sh", "supervisor", "bootstrap.sh", "docker.sh"):
        files[name] = without_comments(files[name])
    return early, {
        "write_files": [
            {"path": f"{LIBRARY}/{name}", "content": text}  # 0644 is cloud-init's default
            | ({"permissions": "0755"} if text.startswith("#!") else {})
            for name, text in files.items()
        ],
        "runcmd": [["sh", f"{LIBRARY}/bootstrap.sh"]],
        "cloud_config_modules": ["runcmd"],
        "cloud_final_modules": ["scripts_user"],
    }


def _drop_unused(trees: Sequence[ast.Module]) -> None:
    """Take away the functions and the constants whose names nothing in these programs has, since
    what they are for is not in a stock image, and the modules that these alone have read."""
    while True:
        names = {name for tree in trees for name in _names(tree)}
        found = False
        for tree in trees:
            bodies: list[ast.Module | ast.ClassDef] = [tree]
            bodies += [part for part in tree.body if isinstance(part, ast.ClassDef)]
            for node in bodies:
                kept = [part for part in node.body if _defined(part) in {None, *names}]
                found = found or len(kept) < len(node.body)
                node.body = kept
        if not found:
            break
    for tree in trees:
        read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for part in tree.body:
            if isinstance(part, ast.Import | ast.ImportFrom):
                part.names = [name for name in part.names if (name.asname or name.name) in read]
        tree.body = [part for part in tree.body if getattr(part, "names", True)]


def _defined(node: ast.stmt) -> str | None:
    """The name that a function or an assignment gives; None for what is to stay."""
    name = ""
    if isinstance(node, ast.FunctionDef):
        name = node.name
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
    return None if not name or name.startswith("__") else name


def _names(tree: ast.Module) -> Iterator[str]:
    """All names that are read in a program."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name


def _lean(tree: ast.Module) -> str:
    """The same program without a word for people: clouds take 16 KiB of user-data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
            ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    # `unparse` writes line breaks inside of strings as escapes.
    lines = re.sub(r"\n\n+", "\n", ast.unparse(tree))
    lines = re.sub(r"(?m)^import \w+(\nimport \w+)+$", _joined, lines)
    thin = re.sub("(?m)^ +", lambda indent: " " * (len(indent[0]) // 4), lines)
    return f"{thin}\n"


def _joined(imports: re.Match[str]) -> str:
    return imports[0].replace("\nimport ", ", ")


def _needs_our_image(node: ast.stmt) -> bool:
    if not isinstance(node, ast.ImportFrom) or not node.level:
        return False
    names = [node.module] if node.module else [name.name for name in node.names]
    return any(f"{name}.py" in OF_OUR_IMAGES for name in names)


class _Untyped(ast.NodeTransformer):
    """Leaves out what only type checkers read, and what needs a file that is not there."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module in OF_TYPES else node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return None
        if any(_needs_our_image(part) for part in node.body):
            node.body = [ast.Raise(ast.Name("ImportError", ast.Load()))]  # as it would anyway
        return self.generic_visit(node)

    def visit_With(self, node: ast.With) -> ast.AST:
        absent = ast.unparse(node.items[0]) == "suppress(ModuleNotFoundError)"
        return ast.Pass() if absent else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign([node.target], node.value), node)


def without_comments(script: str) -> str:
    """Return a shell script without its comments."""
    lines = script.splitlines(keepends=True)
    return "".join(
        line for line in lines if line.startswith("#!") or not line.lstrip().startswith("#")
    )
