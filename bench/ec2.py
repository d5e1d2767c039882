"""What EC2 costs through vmrunner, beside a script of raw boto3 calls and beside cloud-custodian.

    python bench/ec2.py [--builds 200] [--pairs 3] [--latency 0.1] [--machines 5000] [--expired 500]

Builds: the real engine and driver, with sessions that end at once, from submit until each VM is
seen dead. The script causes the same effects with as many threads as the engine has for creates,
and checks nothing. They take turns, each at a fresh endpoint in a process of its own, whose CPU is
not counted. The account's limits on calls are opened wide, since the script keeps none.

A sweep: `vmrunner reap` and `custodian run`, each as a command, on the same machines. Then once
more, by turns, at an endpoint that gives the same answers after a fixed time (`replay.py`). Exit 1
when a bound on calls is broken.
"""

from __future__ import annotations

import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from platformdirs import user_cache_path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import clouds
from bench import engine as engines
from bench.clouds import (
    SLOW_CPU,
    SLOW_WALL,
    Row,
    Spent,
    by_action,
    compared,
    order,
    show,
    spent,
    through_vmrunner,
    unlimited,
)
from bench.endpoint import BULK, Account, account
from bench.replay import Tape, served
from tests.support.ec2 import INSTALLATION, REGION, credentials
from vmrunner.model import TAG, Ref
from vmrunner.providers.ec2 import create_request
from vmrunner.providers.ec2.client import QUOTAS
from vmrunner.providers.ec2.options import Ec2Options
from vmrunner.providers.ec2.provider import Ec2Provider

if TYPE_CHECKING:
    from vmrunner.session import End, Reporter, SessionJob

WALL = 1.1  # against the script
THREADS = 8  # that make an engine's creates
PAGE, BATCH = 1000, 100  # what one call lists, what one call ends
C7N: Final = "c7n==0.9.53"
CACHE: Final = user_cache_path("vmrunner") / "bench"
#: Seconds that each answer takes where it is given again.
LATENCIES: Final = (0.1, 0.5)
ROUNDS: Final = 3
CAPTION: Final = "A sweep: vmrunner lists disks and interfaces too, cloud-custodian machines alone."
ROLE: Final = "arn:aws:iam::123456789012:role/vmrunner-schedule"
#: What a schedule calls.
TERMINATE: Final = "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"


# --- builds --------------------------------------------------------------------------------------


class Provider(Ec2Provider):
    """One without limits of its own, that tells when a machine is armed."""

    def __init__(self, at: Account, armed: Mapping[str, Event]) -> None:
        options = Ec2Options(
            name="aws",
            installation=INSTALLATION,
            region=REGION,
            image=at.site.image,
            subnets=at.site.subnets[:1],
            security_groups=(at.site.security_group,),
            instance_types=("m7i.large",),
            scheduler_role=ROLE,
            endpoint_url=at.url,
        )
        super().__init__(options, buckets=unlimited(QUOTAS))
        arms = self.arm  # the attribute of one that has a scheduler's role

        def arm(ref: Ref, instance: str, deadline: float) -> Ref | None:
            done = arms(ref, instance, deadline)
            armed[instance].set()
            return done

        self.arm = arm


class Session(engines.Session):
    """A build that ends once its machine is armed. A real one lasts that long anyway."""

    def __init__(self, job: SessionJob, reporter: Reporter, armed: Event) -> None:
        super().__init__(job, reporter)
        self._armed = armed

    def run(self) -> End:
        verdict = super().run()
        self._armed.wait()
        return verdict


def ours(builds: int, directory: Path | None, latency: float = 0.0) -> Spent:
    with account(latency) as at:
        armed: defaultdict[str, Event] = defaultdict(Event)
        aws = Provider(at, armed)

        def sessions(job: SessionJob, reporter: Reporter) -> Session:
            return Session(job, reporter, armed[job.instance.id])

        return through_vmrunner(at, aws, INSTALLATION, builds, directory, sessions)


def by_script(builds: int, latency: float = 0.0) -> Spent:
    """The costs of a plain script: it checks nothing and retries nothing."""
    with account(latency) as at:
        aws = Provider(at, {})
        image = aws.catalog.image()
        orders = [order(aws, INSTALLATION) for _ in range(builds)]
        requests = [create_request.request(vm_order, aws.options, image) for vm_order in orders]

        def work() -> None:
            session = boto3.Session()
            many = Config(max_pool_connections=THREADS)
            ec2, scheduler = (
                session.client(name, region_name=REGION, endpoint_url=at.url, config=many)
                for name in ("ec2", "scheduler")
            )

            def life(request: dict[str, Any]) -> None:
                (created,) = ec2.run_instances(**request)["Instances"]
                name = created["InstanceId"]
                arm(scheduler, name)
                ec2.modify_instance_metadata_options(InstanceId=name, HttpEndpoint="disabled")
                ec2.terminate_instances(InstanceIds=[name])
                scheduler.delete_schedule(Name=name)

            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(life, requests))

        return spent(at, work)


def arm(scheduler: Any, name: str) -> None:
    when = datetime.fromtimestamp(time.time() + 3600, UTC)
    scheduler.create_schedule(
        Name=name,
        ScheduleExpression=f"at({when:%Y-%m-%dT%H:%M:%S})",
        FlexibleTimeWindow={"Mode": "OFF"},
        ActionAfterCompletion="DELETE",
        Target={"Arn": TERMINATE, "RoleArn": ROLE, "Input": f'{{"InstanceIds":["{name}"]}}'},
    )


# --- a sweep -------------------------------------------------------------------------------------

POLICY: Final = """policies:
  - name: reap
    resource: aws.ec2
    query:
      - instance-state-name: [pending, running, stopping, stopped]
    filters:
      - "tag:{tag}installation": {installation}
      - type: value
        key: "tag:{tag}expires-at"
        value_type: integer
        op: lt
        value: {now}
    actions:
      - terminate
"""
CONFIG: Final = """installation = "{installation}"
[providers.aws]
kind = "ec2"
region = "{region}"
endpoint_url = "{url}"
scheduler_role = "{role}"
"""


def custodian() -> Path | str:
    """The program, installed apart since it pins an SDK of its own; else how to install it."""
    place = CACHE / C7N
    program = place / "bin" / "custodian"
    uv = Path(sys.prefix) / "bin" / "uv"
    commands = (
        [uv, "venv", "-q", "--clear", place],
        [uv, "pip", "install", "-q", "-p", place, C7N],
    )
    if not program.exists():
        for command in commands:
            if subprocess.run(command, check=False).returncode:
                return "; ".join(" ".join(map(str, command)) for command in commands)
    return program


#: An endpoint's URL and a place of its own → its words.
Command = Callable[[str, Path], list[str]]


def swept(machines: int, expired: int, command: Command, tape: Tape | None = None) -> Spent:
    """What one command takes that ends the expired, and nothing else. `tape`: keeps all that it was
    told; its times are the tape's too then."""
    with account() as at:
        at.fill(machines, expired, time.time())
        if tape is None:
            found = timed(at.url, command)
        else:
            tape.upstream = at.url
            with served(tape) as url:
                found = timed(url, command)
        if len(at.alive()) != machines - expired:
            raise SystemExit(f"{len(at.alive())} of {machines} are left")
        return found._replace(calls=at.counts())


def timed(url: str, command: Command) -> Spent:
    """The costs of a command, with its start."""
    with tempfile.TemporaryDirectory() as name:
        argv = command(url, Path(name))
        # Python's compiled modules are kept, whatever this environment says: else each start of
        # each side would compile them again.
        foreign = ("VMRUNNER_", "XDG_", "PYTHONDONTWRITE")
        keep = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        homes = {f"XDG_{kind}_HOME": name for kind in ("CACHE", "CONFIG", "DATA", "STATE")}
        more = {
            "AWS_ENDPOINT_URL": url,
            "AWS_DEFAULT_REGION": REGION,
            "HOME": name,
            "PYTHONPYCACHEPREFIX": str(CACHE / "pycache"),
        }
        wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        run = subprocess.run(
            argv, cwd=name, env=keep | homes | more, capture_output=True, text=True, check=False
        )
        wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
        if run.returncode:
            raise SystemExit(f"{argv}: exit {run.returncode}\n{run.stdout}\n{run.stderr}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Spent(wall, cpu, Counter())


def reap(url: str, place: Path) -> list[str]:
    text = CONFIG.format(installation=INSTALLATION, region=REGION, url=url, role=ROLE)
    (place / "vmrunner").mkdir()
    (place / "vmrunner/config.toml").write_text(text)
    return [str(Path(sys.prefix) / "bin" / "vmrunner"), "reap"]


def sweeps(machines: int, expired: int) -> list[Row]:
    swept(BULK, BULK, reap)  # what is loaded once is loaded
    ours = swept(machines, expired, reap)
    title = f"{machines} machines, {expired} expired"
    rows = []
    # Each machine has a disk and an interface of its own; of the other kinds there is next to none.
    for what, action, count, size in (
        ("instances listed", "DescribeInstances", machines, PAGE),
        ("disks listed", "DescribeVolumes", machines, PAGE),
        ("interfaces listed", "DescribeNetworkInterfaces", machines, PAGE),
        ("instances ended", "TerminateInstances", expired, BATCH),
    ):
        got, most = ours.calls.pop(action), math.ceil(count / size)
        rows.append(Row(f"{title}: calls, {what}", str(got), str(most), got <= most))
    rows.append(Row("the other calls of vmrunner", by_action(ours.calls)))
    program = custodian()
    if isinstance(program, str):
        return [*rows, Row("cloud-custodian", f"not installed: {program}")]

    def policy(_: str, place: Path) -> list[str]:
        now = int(time.time())
        text = POLICY.format(tag=TAG, installation=INSTALLATION, now=now)
        (place / "policy.yml").write_text(text)
        return [str(program), "run", "-s", "out", "--cache-period", "0", "policy.yml"]

    swept(BULK, BULK, policy)
    theirs = swept(machines, expired, policy)
    for what, got, other in (("CPU", ours.cpu, theirs.cpu), ("wall time", ours.wall, theirs.wall)):
        figures = f"{got / other:.2f}x ({got:.2f} s / {other:.2f} s)"
        rows.append(Row(f"{title}: {what} against {C7N}", figures))
    rows.append(Row(f"the calls of {C7N}", by_action(theirs.calls)))
    return [*rows, *replays(title, machines, expired, policy)]


def replays(title: str, machines: int, expired: int, policy: Command) -> list[Row]:
    """Both once more, by turns, where each answer takes the same time and no processor of ours."""
    tapes: list[tuple[Command, Tape]] = [(reap, Tape()), (policy, Tape())]
    for command, tape in tapes:
        swept(machines, expired, command, tape)
    rows = []
    for latency in LATENCIES:
        pairs = [[again(tape, latency, command) for command, tape in tapes] for _ in range(ROUNDS)]
        ratio = statistics.median(mine / theirs for mine, theirs in pairs)
        mine, theirs = map(statistics.median, zip(*pairs, strict=True))
        figures = f"{ratio:.2f}x ({mine:.2f} s / {theirs:.2f} s)"
        what = f"{title}: wall time where an answer takes {latency} s"
        rows.append(Row(what, figures, "1.0x", ratio <= 1.0, True))
    return rows


def again(tape: Tape, latency: float, command: Command) -> float:
    """Wall time of a command that is told what it was told before."""
    played = tape.rewound(latency)
    with served(played) as url:
        wall = timed(url, command).wall
    if played.missing:
        raise SystemExit(f"never asked before: {played.missing[0]!r}")
    return wall


def main() -> int:
    parser = clouds.arguments(__doc__)
    parser.add_argument("--latency", type=float, nargs="*", default=[0.1], metavar="SECONDS")
    parser.add_argument("--machines", type=int, default=5000, help="0: no sweep")
    parser.add_argument("--expired", type=int, default=500)
    arguments = parser.parse_args()
    with credentials():
        rows = compared(
            arguments.builds,
            arguments.pairs,
            lambda builds: ours(builds, arguments.directory),
            by_script,
            wall=WALL,
        )
        rows += [
            row._replace(what=f"{row.what}, answers take {latency} s")
            for latency in arguments.latency
            for row in compared(
                arguments.builds,
                arguments.pairs,
                lambda builds: ours(builds, arguments.directory, latency),  # noqa: B023
                lambda builds: by_script(builds, latency),  # noqa: B023
                cpu=SLOW_CPU,
                wall=SLOW_WALL,
            )
            if row.time
        ]
        if arguments.machines:
            rows += sweeps(arguments.machines, arguments.expired)
    return show(rows, arguments.directory, CAPTION)


if __name__ == "__main__":
    raise SystemExit(main())
