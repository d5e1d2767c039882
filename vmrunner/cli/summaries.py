"""First sentences of the commands, for the help that lists them all: to load all commands takes
longer than the rest of that help. A test holds them to the commands' own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SUMMARIES: Final[Mapping[str, str]] = {
    "run": "Run a command in a container in a fresh VM.",
    "ps": "List builds, newest first.",
    "show": "Show one build: its end, phases and events.",
    "events": "List the events of one build, in order.",
    "logs": "Print the log so far on stdout, and nothing else.",
    "watch": "Follow a build to its end, as `run` does.",
    "cancel": "End builds and destroy their VMs.",
    "extend": "Keep a held VM longer, never past its deadline.",
    "rm": "Remove the logs and artifacts of builds that ended.",
    "ssh": "Open a shell in a build's VM, or run CMD there.",
    "artifacts": "List and copy the artifacts of builds.",
    "cache": "List and remove caches of builds.",
    "sandbox": "Start VMs and run commands in them, one by one.",
    "mcp": "Offer sandboxes and builds to agents as tools (MCP).",
    "vm": "List and destroy the VMs behind builds.",
    "pool": "Show and change pools of waiting VMs.",
    "image": "Make and manage the VM images of builds.",
    "costs": "Add up costs of builds, pools and images, in USD.",
    "drain": "Stop launching, in every process that serves this ledger.",
    "reap": "End all VMs that must not live, once.",
    "audit": "Report VMs that should not be alive.",
    "guard": "Install and check the guard in a cloud account.",
    "gc": "Remove old logs, artifacts and rows, as `serve` does nightly.",
    "serve": "Drive builds and reap VMs until it is stopped.",
    "token": "Make and revoke tokens of the HTTP API.",
    "notify": "Check webhooks and other receivers of events.",
    "db": "Upgrade and check the ledger's database.",
    "backup": "Copy the ledger and its store, while they are in use.",
    "restore": "Restore a backup of ledger and store.",
    "github": "Run jobs of GitHub Actions, a VM each.",
    "gitlab": "Run jobs of GitLab Runner, a VM each (its custom executor).",
    "garm": "Run runners of GARM, a VM each (its external provider).",
    "init": "Write a commented vmrunner.yml for this directory.",
    "doctor": "Check that all is there and allowed, with fixes.",
    "support": "Collect facts for a bug report.",
    "config": "Show the configuration, and trust a project's.",
    "version": "Print the version.",
    "help": "Print the help of a command, as COMMAND --help does.",
}
