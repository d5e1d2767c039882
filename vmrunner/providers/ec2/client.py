"""The calls that this driver makes, and no others: each waits for its token, tells the time, and
fails in one way. Only here is boto3 used."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ProfileNotFound
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp

from vmrunner.errors import ConfigError, CredentialsRefused, Throttled, Uncertain
from vmrunner.lib.token_bucket import Limit
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.clock import CloudClock
from vmrunner.providers.common.rate_limits import Buckets, Quota
from vmrunner.providers.ec2 import error_codes
from vmrunner.providers.ec2.options import Ec2Options

if TYPE_CHECKING:
    from types_boto3_ec2 import type_defs as ec2
    from types_boto3_iam import type_defs as iam
    from types_boto3_scheduler import type_defs as scheduler
    from types_boto3_service_quotas import type_defs as service_quotas
    from types_boto3_sts import type_defs as sts

#: A document without a type.
Answer = dict[str, Any]
AnswerT = TypeVar("AnswerT")


class Ec2Caller(Protocol):
    """Anything that makes calls as `Ec2Client` does."""

    def __call__(
        self,
        region: str,
        api: Ec2Api[AnswerT],
        *,
        items: int = 1,
        patience: float = 30.0,
        **params: Any,
    ) -> AnswerT: ...


#: Per account and region, as EC2 documents them (reference: "request throttling").
QUOTAS: Final = {
    "describe": Quota(Limit(100, 20)),
    "named": Quota(Limit(50, 10)),  # by ids: neither a filter nor pages
    "run": Quota(Limit(5, 2), Limit(1000, 2)),
    "terminate": Quota(Limit(100, 5), Limit(1000, 20)),
    "start": Quota(Limit(5, 2), Limit(1000, 2)),
    "stop": Quota(Limit(50, 5), Limit(1000, 20)),
    "delete": Quota(Limit(100, 5)),
    "change": Quota(Limit(50, 5)),
    "schedule": Quota(Limit(50, 50)),  # the least of all regions: EventBridge Scheduler's quotas
    "group": Quota(Limit(10, 10)),  # of schedules
    "elsewhere": Quota(Limit(50, 10)),  # STS, IAM, Service Quotas
}

PROFILES: Final = "aws configure list-profiles"

#: Of one client: more at once are made anew each time, with a handshake.
CONNECTIONS: Final = 64

#: Seconds. An answer to RunInstances takes some; a region that is down takes for ever.
CONNECT, READ = 5.0, 30.0


class Ec2Api(NamedTuple, Generic[AnswerT]):
    """One call: the SDK's service and method, whose limit it counts against, and the type of its
    answer."""

    service: str
    method: str
    quota: str

    @property
    def action(self) -> str:
        """Return the action as the cloud writes it: RunInstances."""
        words = self.method.replace("_aws_", "_AWS_").split("_")
        return "".join(word if word.isupper() else word.capitalize() for word in words)


RUN: Final[Ec2Api[ec2.ReservationResponseTypeDef]] = Ec2Api("ec2", "run_instances", "run")
TERMINATE: Final[Ec2Api[ec2.TerminateInstancesResultTypeDef]] = Ec2Api(
    "ec2", "terminate_instances", "terminate"
)
START: Final[Ec2Api[ec2.StartInstancesResultTypeDef]] = Ec2Api("ec2", "start_instances", "start")
STOP: Final[Ec2Api[ec2.StopInstancesResultTypeDef]] = Ec2Api("ec2", "stop_instances", "stop")
INSTANCES: Final[Ec2Api[ec2.DescribeInstancesResultTypeDef]] = Ec2Api(
    "ec2", "describe_instances", "describe"
)
NAMED_INSTANCES: Final[Ec2Api[ec2.DescribeInstancesResultTypeDef]] = Ec2Api(
    "ec2", "describe_instances", "named"
)
VOLUMES: Final[Ec2Api[ec2.DescribeVolumesResultTypeDef]] = Ec2Api(
    "ec2", "describe_volumes", "describe"
)
ADDRESSES: Final[Ec2Api[ec2.DescribeAddressesResultTypeDef]] = Ec2Api(
    "ec2", "describe_addresses", "describe"
)
INTERFACES: Final[Ec2Api[ec2.DescribeNetworkInterfacesResultTypeDef]] = Ec2Api(
    "ec2", "describe_network_interfaces", "describe"
)
SNAPSHOTS: Final[Ec2Api[ec2.DescribeSnapshotsResultTypeDef]] = Ec2Api(
    "ec2", "describe_snapshots", "describe"
)
SPOT_REQUESTS: Final[Ec2Api[ec2.DescribeSpotInstanceRequestsResultTypeDef]] = Ec2Api(
    "ec2", "describe_spot_instance_requests", "describe"
)
IMAGES: Final[Ec2Api[ec2.DescribeImagesResultTypeDef]] = Ec2Api(
    "ec2", "describe_images", "describe"
)
SUBNETS: Final[Ec2Api[ec2.DescribeSubnetsResultTypeDef]] = Ec2Api(
    "ec2", "describe_subnets", "describe"
)
GROUPS: Final[Ec2Api[ec2.DescribeSecurityGroupsResultTypeDef]] = Ec2Api(
    "ec2", "describe_security_groups", "describe"
)
VPC: Final[Ec2Api[ec2.DescribeVpcAttributeResultTypeDef]] = Ec2Api(
    "ec2", "describe_vpc_attribute", "describe"
)
TYPES: Final[Ec2Api[ec2.DescribeInstanceTypesResultTypeDef]] = Ec2Api(
    "ec2", "describe_instance_types", "describe"
)
KEYS: Final[Ec2Api[ec2.DescribeKeyPairsResultTypeDef]] = Ec2Api(
    "ec2", "describe_key_pairs", "describe"
)
DELETE_KEY: Final[Ec2Api[Any]] = Ec2Api("ec2", "delete_key_pair", "change")
DELETE_SECURITY_GROUP: Final[Ec2Api[Any]] = Ec2Api("ec2", "delete_security_group", "change")
DELETE_VOLUME: Final[Ec2Api[Any]] = Ec2Api("ec2", "delete_volume", "delete")
DELETE_INTERFACE: Final[Ec2Api[Any]] = Ec2Api("ec2", "delete_network_interface", "delete")
DELETE_SNAPSHOT: Final[Ec2Api[Any]] = Ec2Api("ec2", "delete_snapshot", "delete")
RELEASE_ADDRESS: Final[Ec2Api[Any]] = Ec2Api("ec2", "release_address", "change")
DISASSOCIATE_ADDRESS: Final[Ec2Api[Any]] = Ec2Api("ec2", "disassociate_address", "change")
DEREGISTER: Final[Ec2Api[Any]] = Ec2Api("ec2", "deregister_image", "change")
TAG_IMAGE: Final[Ec2Api[Any]] = Ec2Api("ec2", "create_tags", "change")
UNTAG_IMAGE: Final[Ec2Api[Any]] = Ec2Api("ec2", "delete_tags", "change")
CANCEL_SPOT: Final[Ec2Api[Any]] = Ec2Api("ec2", "cancel_spot_instance_requests", "change")
UNPROTECT: Final[Ec2Api[Any]] = Ec2Api("ec2", "modify_instance_attribute", "change")
SEAL: Final[Ec2Api[Any]] = Ec2Api("ec2", "modify_instance_metadata_options", "change")
CONSOLE: Final[Ec2Api[ec2.GetConsoleOutputResultTypeDef]] = Ec2Api(
    "ec2", "get_console_output", "change"
)
WHO: Final[Ec2Api[sts.GetCallerIdentityResponseTypeDef]] = Ec2Api(
    "sts", "get_caller_identity", "elsewhere"
)
SIMULATE: Final[Ec2Api[iam.SimulatePolicyResponseTypeDef]] = Ec2Api(
    "iam", "simulate_principal_policy", "elsewhere"
)
CREATE_GROUP: Final[Ec2Api[Any]] = Ec2Api("scheduler", "create_schedule_group", "group")
CREATE_SCHEDULE: Final[Ec2Api[Any]] = Ec2Api("scheduler", "create_schedule", "schedule")
DELETE_SCHEDULE: Final[Ec2Api[Any]] = Ec2Api("scheduler", "delete_schedule", "schedule")
SCHEDULES: Final[Ec2Api[scheduler.ListSchedulesOutputTypeDef]] = Ec2Api(
    "scheduler", "list_schedules", "schedule"
)
QUOTA: Final[Ec2Api[service_quotas.GetServiceQuotaResponseTypeDef]] = Ec2Api(
    "service-quotas", "get_service_quota", "elsewhere"
)
DEFAULT_QUOTA: Final[Ec2Api[service_quotas.GetAWSDefaultServiceQuotaResponseTypeDef]] = Ec2Api(
    "service-quotas", "get_aws_default_service_quota", "elsewhere"
)
PRODUCTS: Final[Ec2Api[Any]] = Ec2Api("pricing", "get_products", "elsewhere")
SPOT_PRICES: Final[Ec2Api[ec2.DescribeSpotPriceHistoryResultTypeDef]] = Ec2Api(
    "ec2", "describe_spot_price_history", "describe"
)
ROLE: Final[Ec2Api[iam.GetRoleResponseTypeDef]] = Ec2Api("iam", "get_role", "elsewhere")


class Ec2Client:
    """The SDK under one configuration. Thread-safe; nothing is retried here."""

    def __init__(
        self, options: Ec2Options, clock: CloudClock, *, buckets: Buckets | None = None
    ) -> None:
        self._options = options
        self._clock = clock
        self._buckets = buckets or Buckets(QUOTAS)
        self._lock = threading.RLock()
        self._clients: dict[tuple[str, str], Any] = {}
        self._session: boto3.Session | None = None

    def __call__(
        self,
        region: str,
        api: Ec2Api[AnswerT],
        *,
        items: int = 1,
        patience: float = 30.0,
        **params: Any,
    ) -> AnswerT:
        """Make one call about so many items; wait at most `patience` seconds for its turn. Raises
        `CallFailed`."""
        self._buckets.take(region, api.quota, items=items, patience=patience)
        try:
            answer: AnswerT = getattr(self._client(api.service, region), api.method)(**params)
        except (BotoCoreError, ClientError, ResponseParserError) as error:
            if isinstance(error, ClientError):  # a proxy on the way may have made it
                self._clock.overheard(_date(dict(error.response)))
            failed = error_codes.failed(error, action=api.action, region=region)
            if isinstance(failed.error, Throttled):
                self._buckets.record(region, api.quota, refused=True)
            raise failed from error
        if api.service == "ec2" and _is_page(answer):  # of other services JSON is parsed
            text = f"{api.action} in {region}: a page of HTML, as a gateway's"
            raise CallFailed("", Uncertain(text))
        self._note_date(answer)
        self._buckets.record(region, api.quota, refused=False)
        return answer

    def key(self, region: str) -> str:
        """The access key id that signs right now. Raises `CallFailed` when there is none."""
        try:
            with self._lock:
                credentials = self._open().get_credentials()
            if credentials is None:
                raise NoCredentialsError
            return str(credentials.get_frozen_credentials().access_key)
        except BotoCoreError as error:
            raise error_codes.failed(error, action="credentials", region=region) from error

    # --- within ---

    def _note_date(self, answer: Any) -> None:
        self._clock.observe(_date(answer))

    def _client(self, service: str, region: str) -> Any:
        with self._lock:
            if (service, region) not in self._clients:
                open_client: Any = self._open().client  # typed by name of service: ours is drawn
                self._clients[service, region] = open_client(
                    service,
                    region_name=region,
                    endpoint_url=self._options.endpoint_url,
                    config=Config(
                        connect_timeout=CONNECT,
                        read_timeout=READ,
                        # The engine knows better what may be sent again, and when.
                        retries={"total_max_attempts": 1},
                        max_pool_connections=CONNECTIONS,
                        user_agent_extra="vmrunner",
                    ),
                )
            return self._clients[service, region]

    def _open(self) -> boto3.Session:
        if self._session is None:
            try:
                self._session = boto3.Session(
                    profile_name=self._options.profile, botocore_session=_quick()
                )
            except ProfileNotFound as error:
                raise CallFailed("", CredentialsRefused(str(error), hint=PROFILES)) from error
        return self._session


def _is_page(answer: Any) -> bool:
    """True of a proxy's page, which, if well-formed, parses as an answer of EC2's without
    fields."""
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(headers.get("content-type", "")).startswith("text/html")


def _date(answer: Answer) -> str | None:
    headers: dict[str, str] = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers.get("date")


def _quick() -> botocore.session.Session:
    """One that reads times as AWS writes them: what reads any costs half of a listing."""
    session = botocore.session.get_session()
    factory = session.get_component("response_parser_factory")
    factory.set_parser_defaults(timestamp_parser=_time)
    return session


def _time(value: Any) -> datetime:
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    parsed: datetime = parse_timestamp(value)
    return parsed


def moment(text: str | None) -> float:
    """Epoch seconds of a time that an answer has as text; 0 when it has none."""
    return _time(text).timestamp() if text else 0.0


def region_of(profile: str | None) -> str | None:
    """The region that the SDK's own configuration names. Raises `ConfigError`."""
    try:
        found: str | None = boto3.Session(profile_name=profile).region_name
    except ProfileNotFound as error:
        raise ConfigError(str(error), hint=PROFILES) from None
    return found
