"""Gymnasium environments in processes of their own: its AsyncVectorEnv, with names for faults.

What goes wrong in a process, that it ends, and that it hangs, is an EnvError with the number of the
environment; when the batch is closed, or who made it ends, no process is left.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import _async_worker

from envs.wrapped.guarded_env import EnvError
from envs.wrapped.watchdog import GRACE_SECONDS

CONTEXT = "forkserver"
"""Processes fork from a server that has no threads and no GPU, and has imported what they need."""
CLOSE_SECONDS = 10.0
"""After which a process that has been asked to end is killed."""
POLL_SECONDS = 0.5
ASKS_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
"""Signals that may go to a group of processes: those of the environments leave them to who made
them, who ends an update, saves, and closes the environments."""


class ProcessVectorEnv(AsyncVectorEnv):
    """One process for each environment, SAME_STEP autoreset.

    Args:
        env_fns: make the environments: each a `GuardedEnv`, by whose words errors have a number.
        name: the environment's id.
        timeout: seconds that one step or reset may take; what cannot be interrupted then is killed
            `GRACE_SECONDS` later. None: any time.
        shares_memory: whether observations are written to memory that all processes share; texts
            cannot be, whose letters and lengths a space does not say.

    Raises:
        ValueError: for an environment that cannot be made, or cannot be sent to a process, and for
            spaces that differ.
    """

    def __init__(
        self,
        env_fns: Sequence[Callable[[], gymnasium.Env]],
        name: str,
        timeout: float | None,
        shares_memory: bool = True,
    ):
        self._name, self._timeout = name, timeout
        self._what, self._num_steps = "cannot be made", 0
        self.num_envs, self.processes, self.parent_pipes = len(env_fns), [], []
        multiprocessing.get_context(CONTEXT).set_forkserver_preload(["envs.wrapped.single_env"])
        try:
            with _without_main(), self._named():
                super().__init__(
                    env_fns,
                    shared_memory=shares_memory,
                    copy=False,
                    context=CONTEXT,
                    worker=_work,
                    autoreset_mode=AutoresetMode.SAME_STEP,
                )
        except BaseException as error:
            self.closed = True
            _kill(self.processes)
            if isinstance(error, ValueError) or not isinstance(error, Exception):
                raise
            raise ValueError(self._why(error)) from error
        # before those that multiprocessing would ask to end, and wait for
        self._at_exit = Finalize(self, _kill, (self.processes,), exitpriority=100)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self._what = "reset after"
        with self._named():
            self.reset_async(seed=seed, options=options)
            self._wait()
            return self.reset_wait()

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._what = "step"
        self._num_steps += 1
        with self._named():
            self.step_async(actions)
            self._wait()
            return self.step_wait()

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        for pipe in self.parent_pipes:
            with suppress(OSError):
                pipe.send(("close", None))
        deadline = time.monotonic() + CLOSE_SECONDS
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        late = [str(i) for i, process in enumerate(self.processes) if process.is_alive()]
        if late:
            warnings.warn(
                f"{self._name}: env {', '.join(late)} of {self.num_envs} did not close within "
                f"{CLOSE_SECONDS:g} s; the process was killed",
                RuntimeWarning,
                stacklevel=2,
            )
        self._at_exit()
        for pipe in self.parent_pipes:
            pipe.close()
        self.error_queue.close()

    def _wait(self) -> None:
        """Wait for all processes; time in which this one was stopped does not count."""
        waited = 0.0
        for index, pipe in enumerate(self.parent_pipes):
            while not pipe.poll(POLL_SECONDS):
                waited += POLL_SECONDS
                if self._timeout is not None and waited > self._timeout + GRACE_SECONDS:
                    self.processes[index].kill()
                    raise EnvError(
                        f"{self._where(index)} failed: it has not ended after {self._timeout:g} s, "
                        "could not be interrupted, and was killed"
                    )

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        """Raise the first error that came, without the traceback that Gymnasium would print."""
        if not all(successes):
            raise self.error_queue.get(timeout=CLOSE_SECONDS)[2]

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say which process has ended where one no longer answers."""
        try:
            yield
        except (EOFError, ConnectionError) as error:
            wait([process.sentinel for process in self.processes], CLOSE_SECONDS)
            codes = [process.exitcode for process in self.processes]
            index = next((i for i, code in enumerate(codes) if code is not None), None)
            if index is None:
                raise
            code = codes[index]
            assert code is not None
            by = (
                f"was killed by {signal.Signals(-code).name}"
                if code < 0
                else f"ended with exit code {code}"
            )
            raise EnvError(f"{self._where(index)} failed: its process {by}") from error

    def _where(self, index: int) -> str:
        number = f" {self._num_steps}" if self._num_steps or self._what != "cannot be made" else ""
        return f"{self._name}, env {index} of {self.num_envs}: {self._what}{number}"

    def _why(self, error: Exception) -> str:
        """Return why there are no processes."""
        if isinstance(error, EnvError):
            return str(error)
        if isinstance(error, RuntimeError) and "space" in str(error):
            return (
                f"env={self._name!r} has other spaces in each copy; make them, bounds included, "
                "the same in all"
            )
        said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
        return (
            f"env={self._name!r} cannot be run in processes ({said}); set --vectorize sync, or "
            "name the module that registers it: --env my_module:MyEnv-v0"
        )


def num_cores() -> int:
    """Return the cores that this process may use."""
    # sched_getaffinity knows of containers' and taskset's limits, where it exists
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _work(index: int, env_fn: Any, pipe: Any, parent_pipe: Any, *rest: Any) -> None:
    """Run one environment: Gymnasium's worker, which says why it cannot be made."""
    for number in ASKS_TO_STOP:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        env = env_fn()
    except Exception as error:
        _, error_queue, *_ = rest
        said = f"{error}, or set --vectorize sync: it was made in a process of its own"
        error_queue.put((index, ValueError, ValueError(said), ""))
        pipe.recv()
        pipe.send((None, False))
        return
    with suppress(EOFError, ConnectionError):  # who made it has ended
        _async_worker(index, lambda: env, pipe, parent_pipe, *rest)


def _end_with_parent() -> None:
    """End this process, also in the middle of a step, when the one that made it has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _kill(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


@contextmanager
def _without_main() -> Iterator[None]:
    """Let processes start without running the main module again, which they do not need."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
