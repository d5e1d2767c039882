"""First sentences of the commands, for the help that lists them all: to load all commands takes
longer than the rest of that help. A test holds them to the commands' own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SUMMARIES: Final[Mapping[str, str]] = {
    "run": "Run a command in a container in a fresh VM.",
    "ps": "The builds of this ledger, newest first: those that have not finished, or all where "
    "a state, a result or a time is asked for.",
    "show": "One build: its end, where the time went, what happened.",
    "events": "The events of one build, in order.",
    "logs": "The log so far, on stdout, and nothing else.",
    "watch": "Follow a build to its end, as `run` does.",
    "cancel": "End builds and destroy their VMs.",
    "extend": "Keep a held build's VM longer, but never past its deadline.",
    "rm": "Remove the logs and artifacts of builds that ended.",
    "ssh": "A shell in a build's VM, or with -- CMD one command; the exit code is its own.",
    "artifacts": "Artifacts: what builds brought back.",
    "cache": "Caches: what builds left to later ones.",
    "sandbox": "VMs in which commands are run one by one.",
    "mcp": "Sandboxes and builds as tools of an agent (Model Context Protocol), on stdin and "
    "stdout.",
    "vm": "The VMs behind builds.",
    "pool": "VMs that wait for builds.",
    "image": "VM images: what builds boot from.",
    "costs": "Costs of builds, of pools' VMs that no build used, and of images.",
    "drain": "Stop launching, in every process that serves this ledger.",
    "reap": "Delete once what must not live: VMs past their deadline, abandoned, without a "
    "row, and what dead ones left.",
    "audit": "Compare the clouds with the ledger.",
    "guard": "The guard in a cloud account: ends what is past its deadline, whatever became of "
    "vmrunner.",
    "gc": "Do once what `serve` does nightly: remove logs and artifacts of old builds, objects in "
    "the store that nothing needs, and local images that were replaced.",
    "serve": "Start and drive builds, and reap, until it is stopped.",
    "token": "Tokens of the HTTP API.",
    "notify": "Webhooks: where `serve` sends what happens.",
    "db": "The ledger's database.",
    "backup": "Copy the ledger and all that is in its store, while it is served.",
    "restore": "Put a backup where ledger and store are.",
    "github": "Runner scale sets at GitHub: one VM a job.",
    "gitlab": "Custom executor of GitLab Runner, which calls these: one VM a job.",
    "garm": "The external provider that GARM's configuration names.",
    "init": "Write a commented vmrunner.yml with a job that fits what lies here.",
    "doctor": "Check that everything is there, and allowed.",
    "support": "Facts for a bug report.",
    "config": "The configuration.",
    "version": "Print the version of vmrunner; with -o json also of Python and of the tables it "
    "knows.",
    "help": "Print the help of a command: the same as COMMAND --help.",
}
