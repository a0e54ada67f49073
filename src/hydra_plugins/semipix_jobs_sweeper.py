"""Hydra's plug-in `hydra/sweeper=semipix_jobs`: a sweep over a list of jobs, which need not be a product of values.

Hydra imports this file whenever it starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override


@dataclass
class JobsSweeperConf:
    """The jobs.

    Attributes:
        jobs: for each job its overrides, beside those of the command line.
        max_batch_size: jobs that a launcher gets at a time; by default all of them.
    """

    _target_: str = "hydra_plugins.semipix_jobs_sweeper.JobsSweeper"
    jobs: list[list[str]] = field(default_factory=list)
    max_batch_size: int | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="semipix_jobs", node=JobsSweeperConf, provider="semipix")


class JobsSweeper(BasicSweeper):
    """Starts a list of jobs; its arguments are the attributes of `JobsSweeperConf`."""

    def __init__(self, jobs: Sequence[Sequence[str]], max_batch_size: int | None) -> None:
        super().__init__(max_batch_size)
        self.jobs = [list(job) for job in jobs]

    def split_arguments(  # type: ignore[override]
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        ((shared,),) = BasicSweeper.split_arguments(overrides, None)
        jobs = [[*shared, *job] for job in self.jobs]
        return list(self.split_overrides_to_chunks(jobs, max_batch_size))
