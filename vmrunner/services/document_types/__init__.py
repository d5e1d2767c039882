"""Types of the documents: for mypy, which holds their writers to them, and for their schemas. No
command that writes a document loads them."""

from __future__ import annotations

from vmrunner.services.document_types.builds import AllowListDocument as AllowListDocument
from vmrunner.services.document_types.builds import ArtifactDocument as ArtifactDocument
from vmrunner.services.document_types.builds import ArtifactRuleDocument as ArtifactRuleDocument
from vmrunner.services.document_types.builds import BuildDocument as BuildDocument
from vmrunner.services.document_types.builds import CacheRuleDocument as CacheRuleDocument
from vmrunner.services.document_types.builds import ChunkDocument as ChunkDocument
from vmrunner.services.document_types.builds import ChunkHeadDocument as ChunkHeadDocument
from vmrunner.services.document_types.builds import EndedBuildDocument as EndedBuildDocument
from vmrunner.services.document_types.builds import EventDocument as EventDocument
from vmrunner.services.document_types.builds import FailedTestDocument as FailedTestDocument
from vmrunner.services.document_types.builds import InstanceDocument as InstanceDocument
from vmrunner.services.document_types.builds import ListedBuildDocument as ListedBuildDocument
from vmrunner.services.document_types.builds import LogLineDocument as LogLineDocument
from vmrunner.services.document_types.builds import LogSearchDocument as LogSearchDocument
from vmrunner.services.document_types.builds import LogSectionDocument as LogSectionDocument
from vmrunner.services.document_types.builds import NetworkDocument as NetworkDocument
from vmrunner.services.document_types.builds import PhaseDocument as PhaseDocument
from vmrunner.services.document_types.builds import ResultDocument as ResultDocument
from vmrunner.services.document_types.builds import ShownBuildDocument as ShownBuildDocument
from vmrunner.services.document_types.builds import SpecDocument as SpecDocument
from vmrunner.services.document_types.builds import StepDocument as StepDocument
from vmrunner.services.document_types.builds import TestsDocument as TestsDocument
from vmrunner.services.document_types.builds import UsageDocument as UsageDocument
from vmrunner.services.document_types.command_line import BackupDocument as BackupDocument
from vmrunner.services.document_types.command_line import ConfigFileDocument as ConfigFileDocument
from vmrunner.services.document_types.command_line import DatabaseDocument as DatabaseDocument
from vmrunner.services.document_types.command_line import DryRunDocument as DryRunDocument
from vmrunner.services.document_types.command_line import GuardPartDocument as GuardPartDocument
from vmrunner.services.document_types.command_line import ImageDocument as ImageDocument
from vmrunner.services.document_types.command_line import (
    ImageVerdictDocument as ImageVerdictDocument,
)
from vmrunner.services.document_types.command_line import SealedDocument as SealedDocument
from vmrunner.services.document_types.command_line import SettingDocument as SettingDocument
from vmrunner.services.document_types.command_line import SourceFilesDocument as SourceFilesDocument
from vmrunner.services.document_types.command_line import TrustedDocument as TrustedDocument
from vmrunner.services.document_types.command_line import VersionDocument as VersionDocument
from vmrunner.services.document_types.operations import ActionDocument as ActionDocument
from vmrunner.services.document_types.operations import BudgetDocument as BudgetDocument
from vmrunner.services.document_types.operations import CacheDocument as CacheDocument
from vmrunner.services.document_types.operations import CostDocument as CostDocument
from vmrunner.services.document_types.operations import DigestDocument as DigestDocument
from vmrunner.services.document_types.operations import DrainingDocument as DrainingDocument
from vmrunner.services.document_types.operations import EndpointDocument as EndpointDocument
from vmrunner.services.document_types.operations import (
    ExchangedTokenDocument as ExchangedTokenDocument,
)
from vmrunner.services.document_types.operations import FindingDocument as FindingDocument
from vmrunner.services.document_types.operations import LatchDocument as LatchDocument
from vmrunner.services.document_types.operations import LeaseDocument as LeaseDocument
from vmrunner.services.document_types.operations import NodeDocument as NodeDocument
from vmrunner.services.document_types.operations import QuotaDocument as QuotaDocument
from vmrunner.services.document_types.operations import RemovalDocument as RemovalDocument
from vmrunner.services.document_types.operations import SurvivorDocument as SurvivorDocument
from vmrunner.services.document_types.operations import TokenDocument as TokenDocument
from vmrunner.services.document_types.operations import VerdictDocument as VerdictDocument
from vmrunner.services.document_types.problems import OneFault as OneFault
from vmrunner.services.document_types.problems import Problem as Problem
from vmrunner.services.document_types.sandboxes import CommandDocument as CommandDocument
from vmrunner.services.document_types.sandboxes import CommandEndDocument as CommandEndDocument
from vmrunner.services.document_types.sandboxes import CommandNameDocument as CommandNameDocument
from vmrunner.services.document_types.sandboxes import (
    CommandOutputDocument as CommandOutputDocument,
)
from vmrunner.services.document_types.sandboxes import FileDocument as FileDocument
from vmrunner.services.document_types.sandboxes import OffsetsDocument as OffsetsDocument
from vmrunner.services.document_types.sandboxes import PathDocument as PathDocument
from vmrunner.services.document_types.values import Envelope as Envelope
from vmrunner.services.document_types.vms import CloudDocument as CloudDocument
from vmrunner.services.document_types.vms import DestroyDocument as DestroyDocument
from vmrunner.services.document_types.vms import PoolDocument as PoolDocument
from vmrunner.services.document_types.vms import PoolPlaceDocument as PoolPlaceDocument
from vmrunner.services.document_types.vms import PoolSizingDocument as PoolSizingDocument
from vmrunner.services.document_types.vms import PoolTimeDocument as PoolTimeDocument
from vmrunner.services.document_types.vms import SeenInstanceDocument as SeenInstanceDocument
from vmrunner.services.document_types.vms import StrayDocument as StrayDocument
