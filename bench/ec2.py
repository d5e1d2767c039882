"""What EC2 costs through vmrunner, beside a script of raw boto3 calls and beside cloud-custodian.

    python bench/ec2.py [--builds 200] [--pairs 3] [--machines 5000] [--expired 500]

Builds: the real engine and driver, with sessions that end at once, from submit until each VM is
seen dead. The script causes the same effects with as many threads as the engine has for creates,
and checks nothing. They take turns, each at a fresh endpoint in a process of its own, whose CPU is
not counted. The account's limits on calls are opened wide, since the script keeps none.

A sweep: `vmrunner reap` and `custodian run`, each as a command, on the same machines. Exit 1 when
a bound on calls is broken.
"""

from __future__ import annotations

import argparse
import logging
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
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import boto3
from botocore.config import Config
from platformdirs import user_cache_path
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import engine as engines
from bench.endpoint import BULK, Endpoint, endpoint
from tests.amazon import INSTALLATION, REGION, credentials
from vmrunner import ids, process
from vmrunner.desk import EngineLimits
from vmrunner.engine import Engine
from vmrunner.ledger import Ledger
from vmrunner.model import TAG, Limits, Order, Ref, Result, Role, Spec
from vmrunner.providers.common.buckets import Buckets, Limit, Quota
from vmrunner.providers.ec2 import launch
from vmrunner.providers.ec2.calls import QUOTAS
from vmrunner.providers.ec2.options import Options
from vmrunner.providers.ec2.provider import Ec2Provider

if TYPE_CHECKING:
    from vmrunner.session import Job, Reporter, Verdict

CALLS, CPU, WALL = 1.1, 1.5, 1.1  # against the script
THREADS = 8  # that make an engine's creates
PAGE, BATCH = 1000, 100  # what one call lists, what one call ends
C7N: Final = "c7n==0.9.53"
CACHE: Final = user_cache_path("vmrunner") / "bench"
CAPTION: Final = (
    "Builds: vmrunner / the script, which keeps no ledger and no limits on its calls (vmrunner's "
    "are opened wide). Under the ledger this disk alone does {syncs:.0f} fdatasync/s. A sweep: "
    "vmrunner lists disks and interfaces too, cloud-custodian machines alone."
)
OPEN: Final = Limit(1e9, 1e9)
ROLE: Final = "arn:aws:iam::123456789012:role/vmrunner-schedule"
#: What a schedule calls.
TERMINATE: Final = "arn:aws:scheduler:::aws-sdk:ec2:terminateInstances"


class Spent(NamedTuple):
    """What one side took."""

    wall: float
    cpu: float
    calls: Counter[str]


class Row(NamedTuple):
    """One line of the table. `held` is None where nothing is promised. A time never fails a run:
    that is the machine's as much as ours."""

    what: str
    got: str
    bound: str = ""
    held: bool | None = None
    time: bool = False


def spent(at: Endpoint, work: Callable[[], object]) -> Spent:
    at.counts()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Spent(wall, cpu, at.counts())


# --- builds --------------------------------------------------------------------------------------


class Provider(Ec2Provider):
    """One without limits of its own, that tells when a machine is armed."""

    def __init__(self, at: Endpoint, armed: Mapping[str, Event]) -> None:
        options = Options(
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
        super().__init__(options, buckets=Buckets(dict.fromkeys(QUOTAS, Quota(OPEN))))
        self._armed = armed

    def arm(self, ref: Ref, instance: str, deadline: float) -> Ref | None:
        done = super().arm(ref, instance, deadline)
        self._armed[instance].set()
        return done


class Session(engines.Session):
    """A build that ends once its machine is armed. A real one lasts that long anyway."""

    def __init__(self, job: Job, reporter: Reporter, armed: Event) -> None:
        super().__init__(job, reporter)
        self._armed = armed

    def run(self) -> Verdict:
        verdict = super().run()
        self._armed.wait()
        return verdict


def through_vmrunner(builds: int, directory: Path | None = None) -> Spent:
    """From submit to seen dead."""
    with endpoint() as at, tempfile.TemporaryDirectory(dir=directory) as name:
        root = Path(name)
        ledger = Ledger.open(f"sqlite:///{root}/ledger.db", data_dir=root)
        spec = replace(engines.spec(), provider="aws")
        armed: defaultdict[str, Event] = defaultdict(Event)
        aws = Provider(at, armed)
        engine = Engine(
            ledger,
            {"aws": aws},
            lambda job, reporter: Session(job, reporter, armed[job.instance.id]),
            EngineLimits(limits=Limits(max_instances=builds)),
            process=process.current(),
            kind="bench",
            paths=engines.Paths(root, root, root / "wake"),
            orders=engines.orders(ledger),
        )

        def work() -> None:
            for _ in range(builds):
                ledger.builds.submit(spec, id=ids.build_id(), now=time.time())
            engine.run(lambda: engine.idle)

        found = spent(at, work)
        assert all(build.result is Result.SUCCESS for build in ledger.builds.list())
        assert all(row.state == "gone" for row in ledger.instances.list())
        assert not at.alive()
        engine.close()
        ledger.close()
        return found


def by_script(builds: int) -> Spent:
    """What a person would write: nothing is looked at, nothing is sent again."""
    with endpoint() as at:
        aws = Provider(at, {})
        image = aws.places.image()
        requests = [launch.request(order(aws), aws.options, image) for _ in range(builds)]

        def work() -> None:
            session = boto3.Session()
            many = Config(max_pool_connections=THREADS)
            ec2, scheduler = (
                session.client(name, region_name=REGION, endpoint_url=at.url, config=many)
                for name in ("ec2", "scheduler")
            )

            def life(request: dict[str, Any]) -> None:
                (born,) = ec2.run_instances(**request)["Instances"]
                name = born["InstanceId"]
                arm(scheduler, name)
                ec2.modify_instance_metadata_options(InstanceId=name, HttpEndpoint="disabled")
                ec2.terminate_instances(InstanceIds=[name])
                scheduler.delete_schedule(Name=name)

            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(life, requests))

        found = spent(at, work)
        assert not at.alive()
        return found


def arm(scheduler: Any, name: str) -> None:
    when = datetime.fromtimestamp(time.time() + 3600, UTC)
    scheduler.create_schedule(
        Name=name,
        ScheduleExpression=f"at({when:%Y-%m-%dT%H:%M:%S})",
        FlexibleTimeWindow={"Mode": "OFF"},
        ActionAfterCompletion="DELETE",
        Target={"Arn": TERMINATE, "RoleArn": ROLE, "Input": f'{{"InstanceIds":["{name}"]}}'},
    )


def order(aws: Ec2Provider) -> Order:
    return Order(
        instance=ids.instance_id(),
        build=ids.build_id(),
        installation=INSTALLATION,
        generation=ids.build_id(),
        role=Role.BUILD,
        offer=aws.offers(Spec())[0],
        deadline=float(int(time.time() + 3600)),
        user_data=b"#cloud-config\n" + b"x" * 2000,
    )


def builds(count: int, pairs: int, directory: Path | None) -> list[Row]:
    by_script(4)  # what is loaded once is loaded
    through_vmrunner(4)
    scripts, ours = [], []
    for _ in range(pairs):
        scripts.append(by_script(count))
        ours.append(through_vmrunner(count, directory))
    rows = []
    for what, bound, unit, of in (
        ("API calls", CALLS, "", lambda side: float(side.calls.total())),
        ("CPU", CPU, " s", lambda side: side.cpu),
        ("wall time", WALL, " s", lambda side: side.wall),
    ):
        pair = [(of(a), of(b)) for a, b in zip(ours, scripts, strict=True)]
        ratio = statistics.median(a / b for a, b in pair)
        mine, theirs = (statistics.median(side) for side in zip(*pair, strict=True))
        digits = 2 if unit else 0
        told = f"{ratio:.2f}x ({mine:.{digits}f}{unit} / {theirs:.{digits}f}{unit})"
        rows.append(Row(f"{count} builds: {what}", told, f"{bound}x", ratio <= bound, bool(unit)))
    return [*rows, Row("the calls of vmrunner", by_action(ours[-1].calls))]


def by_action(calls: Counter[str]) -> str:
    return "\n".join(f"{count} {action}" for action, count in calls.most_common())


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
    words = ([uv, "venv", "-q", "--clear", place], [uv, "pip", "install", "-q", "-p", place, C7N])
    if not program.exists():
        for command in words:
            if subprocess.run(command, check=False).returncode:
                return "; ".join(" ".join(map(str, command)) for command in words)
    return program


def swept(machines: int, expired: int, command: Callable[[Endpoint, Path], list[str]]) -> Spent:
    """What one command takes that ends the expired, and nothing else. Its start is in it."""
    with endpoint() as at, tempfile.TemporaryDirectory() as name:
        at.fill(machines, expired, time.time())
        words = command(at, Path(name))
        # Python's compiled modules are kept, whatever this environment says: else each start of
        # each side would compile them again.
        foreign = ("VMRUNNER_", "XDG_", "PYTHONDONTWRITE")
        keep = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        homes = {f"XDG_{kind}_HOME": name for kind in ("CACHE", "CONFIG", "DATA", "STATE")}
        more = {
            "AWS_ENDPOINT_URL": at.url,
            "AWS_DEFAULT_REGION": REGION,
            "HOME": name,
            "PYTHONPYCACHEPREFIX": str(CACHE / "pycache"),
        }
        wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        run = subprocess.run(
            words, cwd=name, env=keep | homes | more, capture_output=True, text=True, check=False
        )
        wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
        if run.returncode or len(at.alive()) != machines - expired:
            raise SystemExit(f"{words}: exit {run.returncode}\n{run.stdout}\n{run.stderr}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Spent(wall, cpu, at.counts())


def reap(at: Endpoint, place: Path) -> list[str]:
    text = CONFIG.format(installation=INSTALLATION, region=REGION, url=at.url, role=ROLE)
    (place / "vmrunner.toml").write_text(text)
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

    def policy(_: Endpoint, place: Path) -> list[str]:
        now = int(time.time())
        text = POLICY.format(tag=TAG, installation=INSTALLATION, now=now)
        (place / "policy.yml").write_text(text)
        return [str(program), "run", "-s", "out", "--cache-period", "0", "policy.yml"]

    swept(BULK, BULK, policy)
    theirs = swept(machines, expired, policy)
    for what, got, other in (("CPU", ours.cpu, theirs.cpu), ("wall time", ours.wall, theirs.wall)):
        told = f"{got / other:.2f}x ({got:.2f} s / {other:.2f} s)"
        rows.append(Row(f"{title}: {what} against {C7N}", told))
    return [*rows, Row(f"the calls of {C7N}", by_action(theirs.calls))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--builds", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--machines", type=int, default=5000)
    parser.add_argument("--expired", type=int, default=500)
    parser.add_argument("--directory", type=Path, help="where the ledgers are made")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with credentials():
        rows = builds(arguments.builds, arguments.pairs, arguments.directory)
        rows += sweeps(arguments.machines, arguments.expired)
        with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
            syncs = engines.disk(Path(name))
    table = Table("", "measured", "bound", "", caption=CAPTION.format(syncs=syncs))
    for row in rows:
        held = {True: "holds", False: "BROKEN", None: ""}[row.held]
        table.add_row(row.what, row.got, row.bound, held)
    Console().print(table)
    return int(any(row.held is False and not row.time for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
