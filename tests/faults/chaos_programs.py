"""GARM and GitLab Runner in an episode. Each leads its runners or jobs by programs that die at
their effects and are called again, until it is done with them or has itself forgotten them."""

from __future__ import annotations

import contextlib
from random import Random
from typing import Any, Final

from tests.faults import forge_programs
from tests.faults.broken import Broken
from tests.faults.commands import Caller
from tests.faults.forge_programs import Program
from tests.faults.github_side import GithubWorld
from vmrunner.errors import NotFound
from vmrunner.model import BuildRecord

AGAIN: Final = 20.0  # seconds after which a program that failed is called again, at most
TRIES: Final = 5  # of a program that begins one; then it is given up
FORGETS: Final = 0.2  # of the runners and jobs nobody wishes the end
COUNT: Final = (3, 10)  # runners and jobs of an episode, from and to


class Led:
    """One runner of GARM's, or one job of GitLab's."""

    def __init__(
        self, world: GithubWorld, draw: Random, number: int, build: dict[str, Any]
    ) -> None:
        self._world, self._draw = world, draw
        self._number, self._build = number, build
        self._program: Program | None = None
        self._begun: str | None = None  # the build, once it is there
        self._again, self._failed = 0.0, 0
        self._forgets = draw.random() < FORGETS
        self.over = False

    def step(self) -> None:
        """Call the next program, when the last one has ended."""
        if self._program is None:
            if self._world.clock() >= self._again and not self.over:
                self._program = self._next()
        elif self._program.ended:
            self._heard(self._program)

    def _next(self) -> Program | None:
        if self._begun is None and self._failed < TRIES:
            return self._create()
        if self._begun is not None and not self._is_done():
            return None
        self.over = self._forgets
        return None if self.over else self._end()

    def _heard(self, program: Program) -> None:
        """A program has ended, well or not."""
        if program in self._world.nodes:
            self._world.nodes.remove(program)  # type: ignore[arg-type]
        self._program = None
        self._again = self._world.clock() + self._draw.random() * AGAIN
        self.over = program.answer is True
        if isinstance(program.answer, str):
            with contextlib.suppress(NotFound):  # the ledger was lost
                self._begin(self._world.truth.builds.get(program.answer))
                self._begun = program.answer
        elif not self.over and self._begun is None:
            self._failed += 1

    def _create(self) -> Program:
        raise NotImplementedError

    def _begin(self, build: BuildRecord) -> None:
        raise NotImplementedError

    def _is_done(self) -> bool:
        raise NotImplementedError

    def _end(self) -> Program:
        raise NotImplementedError


class GarmRunner(Led):
    """It is ended at any time, or ends by itself."""

    def _create(self) -> Program:
        work = forge_programs.garm_create(f"garm-{self._number}", self._build)
        return Program(self._world, work)

    def _begin(self, build: BuildRecord) -> None:
        self._world.seconds[build.id] = self._draw.expovariate(1 / 60)
        self._until = self._world.clock() + self._draw.expovariate(1 / 60)

    def _is_done(self) -> bool:
        return self._world.clock() >= self._until

    def _end(self) -> Program:
        work = forge_programs.garm_delete(f"garm-{self._number}", self._begun)
        return Program(self._world, work)


class GitlabVm(Led):
    """It has some stages, one after the other."""

    _caller: Caller

    def _create(self) -> Program:
        return Program(self._world, forge_programs.gitlab_prepare(self._number, self._build))

    def _begin(self, build: BuildRecord) -> None:
        self._caller = self._world.call(build, {"stage": self._draw.expovariate(1 / 60)})

    def _is_done(self) -> bool:
        return self._caller.ended

    def _end(self) -> Program:
        return Program(self._world, forge_programs.gitlab_clean_up(self._number))


class ProgramTrouble:
    """What GARM and GitLab Runner do in an episode: `step` again and again."""

    def __init__(self, world: GithubWorld, draw: Random, *, span: float) -> None:
        self._world, self._draw = world, draw
        start = world.clock()
        self._comes = sorted(start + draw.random() * span for _ in range(draw.randint(*COUNT)))
        self.led: list[Led] = []

    def step(self) -> None:
        world, draw = self._world, self._draw
        while self._comes and world.clock() >= self._comes[0]:
            self._comes.pop(0)
            build = {
                "provider": draw.choice(world.cloud.names),
                "ttl": draw.choice((400, 700)),
            }
            kind = draw.choice((GarmRunner, GitlabVm))
            self.led.append(kind(world, draw, len(self.led) + 1, build))
        for job in self.led:
            job.step()

    @property
    def over(self) -> bool:
        return all(job.over for job in self.led)

    def check(self) -> None:
        """Nobody forgot one."""
        if unfinished := [job for job in self.led if not job.over]:
            raise Broken(f"6 no forgotten job: {unfinished}")
