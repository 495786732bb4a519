"""One run on several processes: each rank has an equal share of the envs, all have one agent.

torchrun starts the processes and says to each which it is. Here they add up, agree, and tell each
other of errors; where there is one process all of it is the identity, so that nobody has to ask.

Envs have numbers that do not depend on the number of ranks: rank r of R has those from r N / R on.
What is drawn for an env is drawn by its number, and generators are in the same state everywhere:
each rank draws for all envs and keeps what is its own.

Between machines gradients and the like go by NCCL from GPU to GPU, what is on the host by gloo. A
rank that dies closes its connections, by which the others end at once; one whose machine vanishes
without a word is missed after `TIMEOUT`.
"""

from __future__ import annotations

import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn
from torch.distributed import ReduceOp
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")
JOIN = timedelta(minutes=2)
"""For all to connect; where it fails the rank fails, and torchrun starts all again."""
TIMEOUT = timedelta(minutes=30)
"""Between the first rank that comes to a meeting and the last."""
PATIENCE = timedelta(days=30)
"""The same, where one does what the others only wait for."""


class RankFailed(Exception):  # noqa: N818
    """Another rank has failed, and says itself why; this one is between two steps of its work."""


class RankLost(Exception):  # noqa: N818
    """Another rank is gone; what was to be done together is half done."""


class Share(NamedTuple):
    """Which of the equal parts of all envs are meant."""

    rank: int = 0
    num_ranks: int = 1

    def rows(self, num_rows: int) -> slice:
        """Return where `num_rows` rows are among those of all."""
        return slice(self.rank * num_rows, (self.rank + 1) * num_rows)

    def own(self, envs: Int64[Tensor, " E"], num_rows: int) -> Int64[Tensor, " e"]:
        """Return those of the numbers of envs that are here, counted from the first one here."""
        if self.num_ranks == 1:
            return envs
        rows = self.rows(num_rows)
        return envs[(envs >= rows.start) & (envs < rows.stop)] - rows.start

    def draw(
        self, like: Shaped[Tensor, "B ..."], fill_: Callable[[Tensor], Tensor]
    ) -> Shaped[Tensor, "B ..."]:
        """Return random numbers (B, ...): the rows here of those that are drawn for all envs."""
        if self.num_ranks == 1:
            return fill_(torch.empty_like(like))
        every = like.new_empty(self.num_ranks * len(like), *like.shape[1:])
        return fill_(every)[self.rows(len(like))]


ALONE = Share()


class _Meeting(NamedTuple):
    """What this process meets the others by."""

    share: Share
    store: dist.Store  # pyright: ignore[reportPrivateImportUsage]
    host: dist.ProcessGroup
    patient: dist.ProcessGroup


_meeting: _Meeting | None = None


def is_launched() -> bool:
    """Return whether torchrun has started this process as one of several."""
    is_ours = dist.is_available() and dist.is_torchelastic_launched()
    return is_ours and int(os.environ.get("WORLD_SIZE", "1")) > 1


def share() -> Share:
    """Return which part of all envs this process has."""
    return _meeting.share if _meeting else ALONE


def size() -> int:
    """Return the number of ranks."""
    return share().num_ranks


def num_beside() -> int:
    """Return the number of ranks on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if _meeting else 1


def is_first() -> bool:
    """Return whether this process is the one that writes, prints and evaluates."""
    return share().rank == 0


def own_device(device: torch.device) -> torch.device:
    """Return the device of this process: on a machine with several GPUs each rank has its own.

    Raises:
        ValueError: for fewer GPUs than processes, one that is named, or one of Apple's.
    """
    if not is_launched() or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ValueError(
            f"device={str(device)!r} cannot be of several ranks; set --device cpu or cuda"
        )
    if device.index is not None:
        raise ValueError(
            f"device={str(device)!r} is one GPU, and each rank takes one of its own; set --device "
            "cuda, and say by CUDA_VISIBLE_DEVICES which"
        )
    number, num_gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if number > num_gpus:
        raise ValueError(
            f"{number} ranks on a machine where torch sees {num_gpus} GPUs; set --nproc-per-node "
            f"{num_gpus} (or gpu), or --device cpu"
        )
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Meet the other ranks that torchrun has started, if it has, until the end.

    Args:
        device: of this process.
    """
    global _meeting
    if not is_launched() or _meeting is not None:
        yield
        return
    store, rank, number = _find_others(TIMEOUT)
    is_gpu = device.type == "cuda"
    with _words(rank):
        dist.init_process_group(
            "nccl" if is_gpu else "gloo",
            store=store,
            rank=rank,
            world_size=number,
            timeout=JOIN,
        )
        groups: list[Any] = [dist.new_group(backend="gloo", timeout=JOIN) for _ in range(2)]
        for group, timeout in zip((None, *groups), (TIMEOUT, TIMEOUT, PATIENCE), strict=True):
            _set_pg_timeout(timeout, group)
    _meeting = _Meeting(Share(rank, number), store, *groups)
    try:
        yield
        from_first(lambda: None)  # it has written all
    finally:
        if threading.current_thread() is threading.main_thread():
            # to end with an exit code of its own, though torchrun ends all when one has ended
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _meeting = None
    dist.destroy_process_group()


def _find_others(timeout: timedelta) -> tuple[Any, int, int]:
    """Return a store that all ranks share, the number of this one, and how many there are.

    torchrun's store outlives a restart: what ranks of before have left there is not seen.
    """
    store, rank, number = next(iter(rendezvous("env://", timeout=timeout)))
    attempt = f"ranks/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    store = dist.PrefixStore(attempt, store)  # pyright: ignore[reportPrivateImportUsage]
    return store, rank, number


@contextmanager
def _words(rank: int) -> Iterator[None]:
    """Say in one line that another rank is gone."""
    try:
        yield
    except RuntimeError as error:
        (line, *_) = [*str(error).strip().splitlines(), type(error).__name__]
        raise RankLost(
            f"rank {rank} has lost another rank, and ends: what went wrong there is what to look "
            f"for ({line})"
        ) from error


# Sums and means of numbers that every rank has, on their device.


def _reduced(x: Tensor, operation: Any) -> Tensor:
    """Return what all ranks' `x` give together; the same bits everywhere."""
    if _meeting is None:
        return x
    x = x.clone()
    with _words(_meeting.share.rank):
        dist.all_reduce(x, operation, None if x.device.type == "cuda" else _meeting.host)
    return x


def total(x: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Return the sum over ranks."""
    return _reduced(x, ReduceOp.SUM)


def mean(x: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Return the mean over ranks: of means over as many envs each, that over all envs."""
    return total(x) / size()


def variance(mean_: Float[Tensor, "*N"], variance_: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Return the variance over all envs, of each rank's own mean and variance (correction 0)."""
    return mean(variance_ + (mean_ - mean(mean_)).square())


def largest(x: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Return the largest over ranks."""
    return _reduced(x, ReduceOp.MAX)


def every(flag: Bool[Tensor, ""]) -> Bool[Tensor, ""]:
    """Return whether it holds on all ranks."""
    return _reduced(flag.int(), ReduceOp.MIN).bool()


def weight(num_rows: int, num_all: int) -> float:
    """Return the share of all rows that these are."""
    return num_rows / num_all if _meeting else 1.0


def mean_and_deviation(
    x: Float[Tensor, "*N"], weight_: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return mean and deviation (correction 1) of numbers of which ranks have different shares.

    Args:
        x: those of this rank.
        weight_: the share of all that they are; of 0 they do not count.
    """
    if _meeting is None:
        return x.mean(), x.std()
    variance_, mean_ = torch.var_mean(x, correction=0)
    rows = torch.stack((torch.full_like(mean_, weight_), mean_, variance_, 0 * mean_ + x.numel()))
    weights, means, variances, counts = gather(rows[None]).unbind(1)
    num_all = (counts * (weights > 0)).sum()
    of_all = (weights * means).sum()
    square = (weights * (variances + (means - of_all).square())).sum()
    return of_all, (square * num_all / (num_all - 1)).sqrt()


def add_gradients_(
    parameters: Iterable[nn.Parameter], others: Float[Tensor, " n"], weight_: float
) -> Float[Tensor, " n"]:
    """Give parameters the mean gradient of all ranks, by their weights; return that of `others`.

    In one buffer, by one all-reduce, which a CUDA graph can hold. Gradients are weighted, and not
    the loss: some are not its own, such as what a gated write charges for open gates.

    Args:
        parameters: with gradients of means over what is on this rank.
        others: more numbers that are means over it.
        weight_: the share of all that it is.
    """
    if _meeting is None:
        return others
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), others])
    flat = total(weight_ * flat)
    *parts, others = flat.split([*(gradient.numel() for gradient in gradients), len(others)])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return others


def gather(x: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "N ..."]:
    """Return the rows of all ranks, in the order of the envs; each has as many."""
    if _meeting is None:
        return x
    parts = [torch.empty_like(x) for _ in range(size())]
    with _words(_meeting.share.rank):
        dist.all_gather(parts, x.contiguous(), None if x.device.type == "cuda" else _meeting.host)
    return torch.cat(parts)


# What is on the host.


def gather_objects(thing: T) -> list[T]:
    """Return what each rank has, in their order; small things."""
    if _meeting is None:
        return [thing]
    things: list[Any] = [None] * size()
    with _words(_meeting.share.rank):
        dist.all_gather_object(things, thing, _meeting.host)
    return things


def on_any(flag: bool) -> bool:
    """Return whether it holds on some rank."""
    return any(gather_objects(flag))


def gather_state(x: Tensor, num_rows: int) -> Tensor:
    """Return the rows of all ranks on the first one's host; anything on the others.

    Args:
        x: of any dtype. Where its first axis is no axis of envs it is returned as it is.
        num_rows: envs of this rank.
    """
    if _meeting is None or x.dim() == 0 or len(x) != num_rows:
        return x
    if not x.numel():
        return x.new_empty(size() * num_rows, *x.shape[1:])
    flat = x.detach().cpu().reshape(num_rows, -1).contiguous().view(torch.uint8)
    parts = [torch.empty_like(flat) for _ in range(size())] if is_first() else None
    with _words(_meeting.share.rank):
        dist.gather(flat, parts, group=_meeting.host, group_dst=0)
    return torch.cat(parts).view(x.dtype).view(-1, *x.shape[1:]) if parts else x


def has_same_rest(state: Mapping[str, Tensor], num_rows: int) -> bool:
    """Return whether what has no rows of envs is the same on all ranks."""
    if _meeting is None:
        return True
    rest = [t for _, t in sorted(state.items()) if t.dim() == 0 or len(t) != num_rows]
    sums = [zlib.crc32(t.detach().cpu().contiguous().numpy().tobytes()) for t in rest]
    return len(set(map(tuple, gather_objects(sums)))) == 1


def own_state(saved: Tensor, like: Tensor, num_rows: int) -> Tensor:
    """Return of a state of all envs, from `gather_state`, what is of this rank's.

    Args:
        saved: of all envs.
        like: the same part of the state as it is here.
        num_rows: envs of this rank.
    """
    has_rows = like.dim() > 0 and len(like) == num_rows
    if not has_rows or saved.dim() == 0 or len(saved) != size() * num_rows:
        return saved  # what does not fit is found by who takes it
    return saved[share().rows(num_rows)]


@contextmanager
def _telling(error: BaseException | None) -> Iterator[None]:
    """Raise this rank's error when the others have been told of it, or cannot be any more."""
    try:
        yield
    except RankLost:
        if error is None:
            raise
    if error is not None:
        raise error


def from_first(do: Callable[[], T]) -> T:
    """Let the first rank do something while the others wait, and return on each what came of it.

    Raises:
        RankFailed: on the others, where it raises.
    """
    if _meeting is None:
        return do()
    outcome: list[Any] = [None, True]
    error = None
    if is_first():
        try:
            outcome = [do(), False]
        except BaseException as raised:
            error = raised
    with _telling(error), _words(_meeting.share.rank):
        dist.broadcast_object_list(outcome, group=_meeting.patient, group_src=0)
    result, has_failed = outcome
    if has_failed:
        raise RankFailed("the first rank has failed, and says why")
    return result


def together(do: Callable[[], T]) -> T:
    """Let each rank do something by itself, and return its own result once all have done it.

    Raises:
        RankFailed: where it raises on another rank only.
    """
    if _meeting is None:
        return do()
    error, result = None, None
    try:
        result = do()
    except Exception as raised:
        error = raised
    with _telling(error):
        has_failed = gather_objects(error is not None)
    failed = [rank for rank, has in enumerate(has_failed) if has]
    if failed:
        raise RankFailed(f"rank {failed[0]} has failed, and says why")
    return result  # type: ignore[return-value]


def what_differs(model: nn.Module) -> str:
    """Return whether weights or random numbers are not the same on all ranks, in words; or "".

    They stay so by themselves, as long as nothing but the agent draws from torch's generators.
    """
    if _meeting is None:
        return ""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    numbers = zlib.crc32(torch.cat(states).numpy().tobytes())
    weights = torch.stack([p.detach().double().sum() for p in model.parameters()]).sum()
    seen = gather_objects({"random numbers": numbers, "weights": repr(weights.item())})
    return " and ".join(name for name in seen[0] if len({each[name] for each in seen}) > 1)


def is_first_to_say(text: str) -> bool:
    """Return whether no other rank has said this yet: what all find is said once."""
    if not is_launched():
        return True
    try:
        return _common_store().add(f"said/{zlib.crc32(text.encode())}", 1) == 1
    except (RuntimeError, ValueError):  # who keeps the store is gone, or has never come
        return True


def _common_store() -> Any:
    """Return what ranks can leave notes in: also before they meet, where torchrun keeps it."""
    if _meeting is not None:
        return _meeting.store
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise ValueError("there is none before they meet")
    return _find_others(timedelta(seconds=10))[0]
