"""Hydra's plug-in `hydra/launcher=ray_cluster`: it runs the jobs of a sweep as tasks of a Ray cluster.

The released plug-in hydra-ray-launcher stops the whole sweep when the worker of one job has died four times, and needs
cloudpickle below 3. Here only the job of the worker fails. Hydra imports this file whenever it starts, so Ray is
imported later, when a sweep starts.
"""

import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from semipix.errors import SemipixError


@dataclass
class RayClusterConf:
    """Resources of a job, and Ray's options: `hydra.launcher.num_gpus=1`, `+hydra.launcher.init.num_cpus=8`.

    Attributes:
        num_cpus: processor cores of a job.
        num_gpus: GPUs of a job; other GPUs are hidden from it.
        max_retries: how often a job is started again if its worker dies; not if its training fails.
        init: arguments of `ray.init`; without an address it uses the cluster of `RAY_ADDRESS`, or starts a new one.
    """

    _target_: str = "hydra_plugins.semipix_ray_launcher.RayLauncher"
    num_cpus: float = 1
    num_gpus: float = 0
    max_retries: int = 1
    init: dict[str, Any] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/launcher", name="ray_cluster", node=RayClusterConf, provider="semipix")


class RayLauncher(Launcher):
    """Starts jobs as Ray tasks and waits for all of them; its arguments are the attributes of `RayClusterConf`."""

    def __init__(self, num_cpus: float, num_gpus: float, max_retries: int, init: Mapping[str, Any]) -> None:
        self.remote = {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_retries": max_retries}
        self.init: Any = OmegaConf.to_container(init, resolve=True) if isinstance(init, DictConfig) else init

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        try:
            ray = importlib.import_module("ray")
        except ImportError as error:
            raise SemipixError(f"hydra/launcher=ray_cluster: {error}; pip install 'semipix[ray]'") from error
        setup_globals()
        if not ray.is_initialized():
            ray.init(**{"logging_level": logging.ERROR, "log_to_driver": False, **self.init})
        task = ray.remote(**self.remote)(_run)
        results = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            results.append(task.remote(self.hydra_context, config, self.task_function, Singleton.get_state()))
        return [_outcome(ray, result, given) for result, given in zip(results, job_overrides, strict=True)]


def _run(context: HydraContext, config: DictConfig, function: TaskFunction, state: dict[type, Singleton]) -> JobReturn:
    """Run one job, in a worker."""
    setup_globals()
    Singleton.set_state(state)
    return run_job(
        function, config, "hydra.sweep.dir", "hydra.sweep.subdir", hydra_context=context, configure_logging=False
    )


def _outcome(ray: Any, result: Any, overrides: Sequence[str]) -> JobReturn:
    """The result of a job, or the error of a worker that died, which is also in the sweep's records."""
    try:
        returned: JobReturn = ray.get(result)
    except ray.exceptions.RayError as error:
        returned = JobReturn(overrides=filter_overrides(overrides), status=JobStatus.COMPLETED)
        returned.return_value = f"{type(error).__name__}: {error}"
    return returned
