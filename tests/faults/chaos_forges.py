"""GitHub in an episode: jobs that come, are taken back and come again, sessions that end, a service
that is away, fails or limits, and processes of `github serve` that die and come back.

All is drawn from a stream of its own: the episodes without GitHub stay what their seeds made them.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Final

from tests.faults.chaos_programs import ProgramTrouble
from tests.faults.github_side import ForgeProcess, GithubWorld
from tests.support.fake_github import Answer
from vmrunner.integrations.github.runners import RUNNER
from vmrunner.providers.fake import Fault

FAULTS: Final = (Fault.LOST_REQUEST, Fault.LOST_RESPONSE, Fault.SERVER_ERROR, Fault.THROTTLE)
HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
JOBS: Final = (8, 30)  # of an episode, from and to


def drawn_trouble(seed: str, happened: Counter[str], share: float) -> GithubTrouble | None:
    """Return what befalls jobs, in this share of all episodes; None where there are none."""
    draw = Random(f"{seed}:forge")
    return GithubTrouble(draw, happened) if draw.random() < share else None


class GithubTrouble:
    """`begin`, then `step` again and again, `heal`, and `check` when all is `over`."""

    def __init__(self, draw: Random, happened: Counter[str]) -> None:
        self._draw, self._happened = draw, happened
        self._faulty = draw.choice((0.0, 0.02, 0.1))
        self._deadly = draw.choice((0.0, 0.01, 0.05))
        self._slots: list[ForgeProcess | float] = [0.0] * draw.choice((1, 1, 2))
        self._until: dict[str, float] = {}  # when a trouble is over
        self._idle = draw.choice((0, 60, 600))
        self._build = {"timeout": draw.choice((120, 300)), "ttl": draw.choice((400, 700))}

    def begin(self, world: GithubWorld, *, span: float) -> None:
        """Let the world have jobs for so many seconds."""
        draw = self._draw
        self.world = world
        world.most = draw.randint(1, 4)
        world.dies = lambda: draw.random() < self._deadly
        world.fate = self._fate
        world.unanswered = lambda: draw.random() < self._faulty / 4
        world.github.session_life = draw.choice((float("inf"), 300.0))
        self._place = draw.randrange(len(world.cloud.names))
        start = world.clock()
        self._comes = sorted(start + draw.random() * span for _ in range(draw.randint(*JOBS)))
        self._programs = ProgramTrouble(world, Random(draw.random()), span=span)

    def step(self) -> None:
        """What happens in this moment."""
        now, github = self.world.clock(), self.world.github
        while self._comes and now >= self._comes[0] and len(github.sets) == 1:
            self._comes.pop(0)
            self._queue()
        self._befall()
        self._last()
        self._staff()
        self._programs.step()

    def heal(self) -> None:
        """No further trouble; one process at least lives."""
        world, github = self.world, self.world.github
        world.dies = world.fate = world.unanswered = None
        world.arrives = github.acknowledges = github.shows = True
        github.down = False
        github.trouble.clear()
        self._comes.clear()
        alive = [slot for slot in self._slots if isinstance(slot, ForgeProcess) and not slot.dead]
        for process in alive:
            process.asleep = process.ledger_down = False
        if not alive:
            self._start()

    @property
    def over(self) -> bool:
        """Is all done? What programs there are to call is called."""
        self._programs.step()
        return self._programs.over and all(
            job.state == "completed" for job in self.world.github.jobs.values()
        )

    def check(self) -> None:
        """Nobody forgot a job."""
        world = self.world
        world.check_jobs()
        self._programs.check()
        self._happened["runners of GARM and jobs of GitLab"] += len(self._programs.led)
        for row in world.truth.builds.list():
            if RUNNER in row.spec.labels:
                world.check_log(row)
        ends = Counter(job.result for job in world.github.jobs.values())
        self._happened["jobs done"] += ends["succeeded"]
        self._happened["jobs taken back"] += ends["canceled"]
        self._happened["jobs whose VM ended"] += ends["failed"]

    def _queue(self) -> None:
        draw, world = self._draw, self.world
        job = world.github.queue_job()
        never = draw.random() < 0.05
        world.job_lengths[job.id] = float("inf") if never else draw.expovariate(1 / 60)

    def _fate(self) -> Fault | None:
        """What becomes of one request to GitHub."""
        if self._draw.random() >= self._faulty:
            return None
        self._happened["failed requests to GitHub"] += 1
        return self._draw.choice(FAULTS)

    def _befall(self) -> None:
        draw, github = self._draw, self.world.github
        jobs = [job for job in github.jobs.values() if job.state in ("assigned", "running")]
        if jobs and draw.random() < 0.02:
            github.cancel(draw.choice(jobs), again=draw.random() < 0.5)
            self._happened["jobs that GitHub took back"] += 1
        for what, often in (
            ("expire_session", 0.005),
            ("end_sessions", 0.005),
            ("revoke_service_tokens", 0.003),
            ("delete_scale_set", 0.002),
        ):
            if draw.random() < often:
                getattr(github, what)()
                self._happened["ends of sessions, tokens and scale sets"] += 1
        if draw.random() < 0.005:
            head = {"retry-after": str(draw.randint(10, 200))}
            github.next("/", Answer(403, {"message": "secondary rate limit"}, head))
            self._happened["limits of GitHub"] += 1

    def _last(self) -> None:
        """Troubles that last for a while."""
        world, github = self.world, self.world.github
        github.down = self._lasts("outages of GitHub", 0.004, 400.0)
        github.acknowledges = not self._lasts("lost acknowledgements", 0.005, 200.0)
        github.shows = not self._lasts("runners that GitHub does not show", 0.01, 200.0)
        world.arrives = not self._lasts("runners cut off from GitHub", 0.003, 200.0)

    def _lasts(self, what: str, often: float, longest: float) -> bool:
        now = self.world.clock()
        if self._until.get(what, 0.0) <= now and self._draw.random() < often:
            self._until[what] = now + self._draw.uniform(10, longest)
            self._happened[what] += 1
        return now < self._until.get(what, 0.0)

    def _staff(self) -> None:
        """Who died is started again some time; who sleeps is woken."""
        world, draw = self.world, self._draw
        now = world.clock()
        for number, slot in enumerate(self._slots):
            if isinstance(slot, float):
                if now >= slot:
                    self._slots[number] = self._start()
            elif slot.dead:
                self._happened["crashes of `github serve`"] += 1
                if slot in world.nodes:
                    world.nodes.remove(slot)
                self._slots[number] = now + draw.random() * draw.choice((1.0, 10.0, 100.0, 900.0))
            elif slot.asleep:
                slot.asleep = draw.random() > 0.02
            else:
                slot.asleep = draw.random() < 0.001
                slot.dead = draw.random() < 0.002
                if draw.random() < 0.002:
                    slot.host.skew -= draw.choice((60.0, HOUR, DAY))

    def _start(self) -> ForgeProcess:
        build = {**self._build, "provider": self.world.cloud.names[self._place]}
        skew = self._draw.choice((0.0, 0.0, DAY, -DAY, -HOUR))
        clock = self.world.clock_at_start(self.world.host, skew)
        return self.world.forge(hears_all=True, skew=clock, idle=self._idle, build=build)
