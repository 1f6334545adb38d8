"""Many jobs at once: in this process, in worker processes of this machine, or over an existing Ray cluster."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from typing import Any

from salmonn_node.replay.job import Job, run_job
from salmonn_node.replay.job_result import JobResult
from salmonn_node.replay.progress_line import ProgressLine
from salmonn_node.replay.runner import Progress
from salmonn_node.replay.summary import Finished

OnProgress = Callable[[Job, Progress, float], None]


def run_here(jobs: Sequence[Job], on_progress: OnProgress, should_stop: Callable[[], bool]) -> Iterator[Finished]:
    """One job after the other, with progress; stops between observations when told to."""
    for job in jobs:
        if should_stop():
            return

        def report(progress: Progress, duration_s: float, job: Job = job) -> None:
            on_progress(job, progress, duration_s)

        yield Finished(job, run_job(job, report, should_stop))


def run_processes(jobs: Sequence[Job], workers: int, *, lines: bool = False) -> Iterator[Finished]:
    """Jobs spread over `workers` processes; each uses one thread, so that results equal those of a single process.

    Args:
        jobs: what to run.
        workers: processes.
        lines: each process writes a line on its progress now and then.
    """
    # Spawned, not forked: a forked torch may hang on the locks of its parent's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        futures = {pool.submit(_with_lines if lines else run_job, job): job for job in jobs}
        for future in as_completed(futures):
            yield Finished(futures[future], _result(futures[future], future.result))


def run_ray(jobs: Sequence[Job], address: str) -> Iterator[Finished]:
    """One Ray task a job, on the cluster at `address`; every worker must see the recordings at the same paths.

    Raises:
        RuntimeError: Ray is not installed (extra `ray`).
    """
    try:
        import ray
    except ImportError:
        raise RuntimeError("--ray needs Ray: pip install 'salmonn_node[ray]'") from None
    ray.init(address=address, log_to_driver=False)
    try:
        task = ray.remote(run_job)
        get: Callable[..., Any] = ray.get  # its overloads take the reference of an untyped task for a list
        waiting = {task.remote(job): job for job in jobs}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            job = waiting.pop(done)
            yield Finished(job, _result(job, partial(get, done)))
    finally:
        ray.shutdown()


def _with_lines(job: Job) -> JobResult:
    line = ProgressLine(partial(print, flush=True))
    return run_job(job, partial(line, job))


def _result(job: Job, get: Callable[[], JobResult]) -> JobResult:
    """A worker that died is a failed job, and its questions count as wrong; the other jobs go on."""
    try:
        return get()
    except Exception as error:
        return JobResult(job.name, job.settings.arm, error=f"the worker failed: {type(error).__name__}: {error}")


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
