"""Types of the documents that the command line alone writes."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from vmrunner.core.image_retention import RetentionReason
from vmrunner.providers.port_guard import PartState
from vmrunner.services.document_types.values import Moment, Size


class ImageDocument(TypedDict):
    """An image, here or in a cloud: null where there is no such thing."""

    id: str | None
    hash: str
    name: str
    state: str
    created_at: Moment
    provider: str | None
    scope: str | None
    ref: str | None
    title: str | None
    builder: str | None
    deadline: Moment | None
    builder_gone_at: Moment | None
    promoted_at: Moment | None
    snapshots: list[str]
    message: str | None
    size: Size | None
    containers: list[str] | None
    origins: dict[str, str] | None
    directory: str | None


class ImageVerdictDocument(TypedDict):
    """A decision about one image."""

    verdict: str
    why: RetentionReason
    name: str
    created_at: Moment
    ref: str
    title: str
    removed: bool
    trouble: str | None


class BackupDocument(TypedDict):
    """A backup. `lost`: objects that a row names and the store does not have."""

    path: str
    taken_at: Moment
    installation: str
    version: str
    database: str
    objects: int
    bytes: Size
    lost: list[str]


class SettingDocument(TypedDict):
    """A value of the configuration; `origin`: where it came from."""

    key: str
    value: Any
    origin: str


class ConfigFileDocument(TypedDict):
    """A place where a configuration file may be, and whether one is used there."""

    source: str
    path: str
    state: str


class DatabaseDocument(TypedDict):
    """The ledger's database; `version` of its tables, null: it has none; `pending`: upgrades that
    they lack."""

    url: str
    version: str | None
    newest: str
    pending: list[str]
    bytes: Size | None


class VersionDocument(TypedDict):
    """This program; `tables`: the newest version of a ledger that it knows."""

    vmrunner: str
    python: str
    platform: str
    tables: str


class TrustedDocument(TypedDict):
    """A project's file that is trusted for one content."""

    sha256: str
    path: str
    state: str


class SealedDocument(TypedDict):
    """A column of sealed values; `left`: those that are not under the first key."""

    name: str
    values: int
    resealed: int
    left: int


class GuardPartDocument(TypedDict):
    """A part of a guard."""

    part: str
    id: str
    state: PartState
    done: str | None
    detail: str | None


class SourceFilesDocument(TypedDict):
    """The files of a source that would be sent, with the first of their names."""

    count: int
    bytes: Size
    paths: list[str]


class DryRunDocument(TypedDict):
    """More that `run --dry-run` shows beside the build's options."""

    source_files: SourceFilesDocument
