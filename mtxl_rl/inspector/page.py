"""The page: recordings and what was made of them, as one HTML file that needs nothing else.

Shapes: see `mtxl_rl.inspector`.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from minigrid.core.actions import Actions
from torch import Tensor

from agents.actor_critic import ActorCritic
from mtxl_rl.inspector.probe import Probe
from mtxl_rl.inspector.recording import Film, Recording, memory_names, transformer_of
from mtxl_rl.inspector.replay import distances
from mtxl_rl.inspector.thinning import Thinned

MAX_BYTES = 10_000_000
"""Of a page."""
MAX_COLUMNS = 1200
"""Of what is drawn over the steps of an episode."""
MAX_ROWS = 64
"""Rows of the memory that are drawn."""
MAX_NUMBERS = 24
"""Numbers of a policy that are shown."""
NUM_WRITERS = 3
"""Steps that are named for each slot: those that wrote most of it."""
KEPT, CLEARED, SWAPPED = "#1f5fa8", "#7b3fa0", "#dd6b00"
PART = 0.5
"""Distance from which on a policy is said to part."""


@dataclass(frozen=True)
class Variant:
    """The policy of an episode with another memory."""

    name: str
    short: str
    colour: str
    policy: Float[Tensor, "T A"]


def film_bytes(num_episodes: int) -> int:
    """Return the bytes of each kind of picture that an episode may keep, of all on the page."""
    return int(MAX_BYTES * 0.25 / num_episodes)


def episode_data(
    agent: ActorCritic,
    recording: Recording,
    film: Film,
    variants: list[Variant],
    probe: Probe | None,
) -> dict[str, Any]:
    """Return what the page shows of an episode, as plain values."""
    num_steps = len(recording)
    policy = torch.stack(recording.policy)
    shown = [_variant("as it is", "as it is", KEPT, policy, agent)]
    for variant in variants:
        distance = distances(policy, variant.policy, agent.actor.sizes)
        shown.append(
            _variant(variant.name, variant.short, variant.colour, variant.policy, agent)
            | {"distance": _packed(distance.numpy(), "f4"), "parting": _parting(distance)}
        )
    data: dict[str, Any] = {
        "length": num_steps,
        "summary": _summary(recording),
        "value": _packed(np.array(recording.value), "f4"),
        "reward": _packed(np.array(recording.reward), "f4"),
        "cues": [[t, cue] for t, cue in enumerate(recording.cue) if cue >= 0],
        "lastCue": _packed(recording.last_cue, "i4"),
        "memorySteps": _packed(np.array(recording.memory_steps), "i4"),
        "actions": [a if isinstance(a, list) else [a] for a in _rounded(recording, agent)],
        "variants": shown,
        "pictures": _thinned(film.pictures) | {"contents": list(map(_uri, film.pictures.contents))},
        "words": _thinned(film.words) | {"contents": [c.decode() for c in film.words.contents]},
    }
    if film.attention.contents:
        joined = np.frombuffer(b"".join(film.attention.contents), np.uint8)
        data["attention"] = _thinned(film.attention) | _packed(joined, "u1")
    if recording.memories:
        change = np.zeros((num_steps, recording.memories[0].shape[0]), np.float32)
        change[_writes(recording)] = changes(recording)[: len(_writes(recording))]
        data["change"] = _grid(change)
        if probe is not None:
            memories = torch.stack(recording.memories).flatten(1).numpy()
            data["reads"] = _packed(probe.read(memories), "i4")
    if recording.gates:
        gates = _of_slots(torch.stack(recording.gates).numpy(), recording).mean(axis=2)
        data["gates"] = _grid(np.pad(gates, ((0, num_steps - len(gates)), (0, 0))))
        data["writers"] = _writers(recording, film.max_bytes)
    return data


def html_of(
    title: str,
    subtitle: str,
    agent: ActorCritic,
    episodes: list[dict[str, Any]],
    probe: Probe | str | None,
    notes: list[str],
) -> str:
    """Return the page.

    Args:
        title: at its head.
        subtitle: below it, before what is said of the episode.
        agent: who played.
        episodes: from `episode_data`.
        probe: fitted, or why there is none; None where there is nothing to say.
        notes: at its foot, a line each.
    """
    transformer = transformer_of(agent)
    data = {
        "title": title,
        "subtitle": subtitle,
        "episodes": episodes,
        "memoryNames": memory_names(agent)[:MAX_ROWS],
        "policy": _policy_words(agent),
        "hasCue": any(episode["cues"] for episode in episodes),
        "digits": probe.weights.shape[1] if isinstance(probe, Probe) else 1,
        "probe": _probe_data(probe),
        "notes": notes,
    }
    if transformer is not None:
        data["sizes"] = {
            "L": len(transformer.layers),
            "H": transformer.layers[0].attention.heads,
            "N": transformer.num_mem_kv,
            "S": transformer.lmem_len,
            "M": transformer.mem_len,
            "W": transformer.seq_len,
        }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return _filled("page.html", "data", text.replace("</", "<\\/"))  # no end of the script within


def side_by_side(pages: list[str]) -> str:
    """Return one page with those of several runs, which go from step to step together."""
    frames = [f'<iframe srcdoc="{html.escape(page)}"></iframe>' for page in pages]
    return _filled("pages.html", "frames", "\n".join(frames))


def _filled(name: str, place: str, text: str) -> str:
    template = files("mtxl_rl.inspector").joinpath(name).read_text(encoding="utf-8")
    return template.replace(f"{{{{{place}}}}}", text)


def changes(recording: Recording) -> Float[np.ndarray, "A R"]:
    """Return |new - old| / |old| of each row and version of the memory; 1 for the first."""
    memories = torch.stack(recording.memories)
    old, new = memories[:-1], memories[1:]
    tiny = torch.finfo(memories.dtype).tiny
    size = (new - old).norm(dim=-1) / old.norm(dim=-1).clamp_min(tiny)
    return torch.cat((torch.ones_like(memories[:1, :, 0]), size)).numpy()


def authorship(recording: Recording) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield who wrote what each version of the memory holds.

    The share of step j is w_j prod_{k > j} (1 - w_k), from the gates w: what `GatedWrite`
    multiplies its value by.

    Yields:
        The share of each step so far in each part of a slot (t, SG); that of its start (SG,); and
        the last step that wrote to it at all (SG,), -1 for none.
    """
    gates = torch.stack(recording.gates).double().numpy()
    share, start = np.zeros_like(gates), np.ones_like(gates[0])
    last = np.full(len(start), -1)
    before = 0
    for first in recording.memory_steps:
        own = gates[before:first]
        kept = np.cumprod((1 - own)[::-1], axis=0)[::-1]  # prod_{k >= j}
        share[:before] *= kept[0]
        share[before:first] = own * np.concatenate((kept[1:], np.ones_like(kept[:1])))
        start = start * kept[0]
        written = np.where(own > 0, np.arange(before, first)[:, None], -1).max(axis=0)
        last = np.maximum(last, written)
        before = first
        yield share[:first], start, last


def _of_slots(gates: np.ndarray, recording: Recording) -> np.ndarray:
    """Return what is of each gate (..., SG) by slot (..., S, G)."""
    return gates.reshape(*gates.shape[:-1], len(recording.memories[0]), -1)


def _writers(recording: Recording, max_bytes: int) -> dict[str, Any]:
    thinned = Thinned(max_bytes // 4)
    for first, (share, start, last) in zip(
        recording.memory_steps, authorship(recording), strict=True
    ):
        slots = []
        share = _of_slots(share, recording).mean(axis=2)
        start, last = (_of_slots(each, recording) for each in (start, last))
        start, last = start.mean(axis=1), last.max(axis=1)
        for slot in range(min(len(start), MAX_ROWS)):
            own = share[:, slot]
            largest = np.argpartition(-own, min(NUM_WRITERS, len(own) - 1))[:NUM_WRITERS]
            largest = sorted(largest.tolist(), key=lambda step: -own[step])
            steps = [[step, round(float(own[step]), 4)] for step in largest if own[step] >= 0.001]
            rest = round(float(np.nan_to_num(start[slot])), 4)
            slots.append({"steps": steps, "start": rest, "last": int(last[slot])})
        thinned.add(first, json.dumps(slots, separators=(",", ":")).encode())
    return _thinned(thinned) | {"contents": [content.decode() for content in thinned.contents]}


def _writes(recording: Recording) -> list[int]:
    """Return the steps that made each version of the memory."""
    return [first - 1 for first in recording.memory_steps]


def _variant(
    name: str, short: str, colour: str, policy: Float[Tensor, "T A"], agent: ActorCritic
) -> dict[str, Any]:
    num_shown = min(MAX_NUMBERS, agent.actor.num_outputs)
    values = policy[:, :num_shown]  # of numbers, the means
    packed = _bytes(values) if agent.actor.sizes else _packed(values.numpy(), "f4")
    return {"name": name, "short": short, "colour": colour, "policy": packed}


def _parting(distance: Float[Tensor, " T"]) -> str:
    parted = (distance > PART).nonzero().squeeze(1).tolist()
    known = distance[distance.isfinite()]
    unknown = len(distance) - len(known)
    without = f"; at {unknown} of {len(distance)} steps it is not finite" if unknown else ""
    if not parted:
        most = f"{float(known.max()):.2f}" if len(known) else "-"
        return f"the policy never parts by more than {PART} (at most {most}){without}"
    return (
        f"the policy parts first at step {parted[0]}, and at {len(parted)} of {len(distance)} "
        f"steps{without}"
    )


def _summary(recording: Recording) -> str:
    ended = {0.0: ", failure", 1.0: ", success"}.get(recording.success, "")
    cut = ", cut off" if recording.is_cut else ""
    wrong = f"; {recording.not_finite}" if recording.not_finite else ""
    return f"{len(recording):,} steps, return {sum(recording.reward):.3g}{ended}{cut}{wrong}"


def _policy_words(agent: ActorCritic) -> dict[str, Any]:
    """Return names of the numbers of a policy, and whether they are probabilities."""
    space, sizes = agent.action_space, agent.actor.sizes
    parts = agent.observation_space.spaces
    if isinstance(space, spaces.Discrete) and space.n == len(Actions) and "direction" in parts:
        names = [action.name for action in Actions]
    elif isinstance(space, spaces.Discrete):
        names = [f"action {action + space.start}" for action in range(space.n)]
    elif sizes:
        names = [f"part {part + 1}: {n}" for part, size in enumerate(sizes) for n in range(size)]
    else:
        names = [f"mean {place + 1}" for place in range(agent.actor.num_outputs)]
    is_cut = len(names) > MAX_NUMBERS
    return {"names": names[:MAX_NUMBERS], "isChoice": bool(sizes), "isCut": is_cut}


def _rounded(recording: Recording, agent: ActorCritic) -> list[Any]:
    """Return actions, those of several parts as places among all numbers of the policy."""
    sizes = agent.actor.sizes
    if not sizes:
        return [
            [float(f"{x:.4g}") if math.isfinite(x) else None for x in action[:MAX_NUMBERS]]
            for action in recording.action
        ]
    if agent.actor.is_scalar:
        return recording.action
    first = np.cumsum([0, *sizes[:-1]])
    return [(first + np.array(action)).tolist() for action in recording.action]


def _probe_data(probe: Probe | str | None) -> dict[str, Any] | None:
    if not isinstance(probe, Probe):
        return None if probe is None else {"reason": probe}
    words = f"In episodes that it was not fitted to; the most frequent cue is {probe.chance:.0%}."
    if probe.weights.shape[1] > 1:
        words += " Right: all digits of the cue's number."
    return {
        "ages": [list(ages) for ages in probe.ages],
        "accuracy": probe.accuracy,
        "words": words,
    }


def _grid(values: Float[np.ndarray, "T R"]) -> dict[str, Any]:
    """Return the largest values of pieces of the episode, 255 for 1 and more; 0 is exactly 0."""
    num_steps, num_columns = len(values), min(len(values), MAX_COLUMNS)
    starts = np.arange(num_columns) * num_steps // num_columns
    values = np.nan_to_num(values[:, :MAX_ROWS], nan=1.0)
    largest = np.maximum.reduceat(values, starts, axis=0).clip(0, 1)
    grid = np.ceil(largest.T * 255).astype(np.uint8)
    return {"rows": len(grid), "columns": num_columns, **_packed(grid, "u1")}


def _thinned(thinned: Thinned) -> dict[str, Any]:
    return {"steps": thinned.steps, "places": thinned.places}


def _bytes(shares: Float[Tensor, "*N"]) -> dict[str, str]:
    return _packed((shares * 255).round().clamp(0, 255).numpy(), "u1")


def _packed(values: np.ndarray, kind: str) -> dict[str, str]:
    if not kind.startswith("f"):  # a curve has a gap where there is no number
        values = np.nan_to_num(np.asarray(values, np.float64))
    array = np.ascontiguousarray(np.asarray(values).astype(f"<{kind}"))
    return {"kind": kind, "data": base64.b64encode(array.tobytes()).decode()}


def _uri(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
