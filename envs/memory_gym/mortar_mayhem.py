"""Memory Gym's Mortar Mayhem on a grid: watch commands, then obey them one after the other.

Description: while commands are shown the agent cannot move. Then it has `explosion_delay` steps to
    go where the first one sends it, from where it stands; there it has to stay while all other
    tiles burn for `explosion_duration` steps; then the next command counts. In the endless form the
    commands begin again after the last, from where the agent stands, with one more that is shown
    before; the grid goes on at its other end where one walks off.
Actions: Discrete(4): stay, turn left, turn right, go forward.
Observations: MultiDiscrete: column, row, direction (north, west, south, east), the command that is
    shown (0 is none), 1 + the tile that does not burn (column * arena_size + row; 0 is no fire).
    Memory Gym shows all of that as a picture of 84 x 84.
Rewards: .1 for each command that is obeyed, 0 otherwise.
Termination: a command that is not obeyed, a step into the fire, or the last command.

Oddities of Memory Gym, kept: the delay before the first explosion is one step longer; in the
endless form all else stands still while a new command is shown, so that the fire of the last
explosion burns on and the agent must stay for the rest of it. One is not kept: Memory Gym's info
says success also of an episode whose last command was not obeyed; here it does not.

Memory Gym's endless form moves by pixels in eight directions, has three times the steps for each
command, and no limit of steps: ours is its rules on the grid. Shapes: n envs, C commands.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from jaxtyping import Bool, Int64
from torch import Tensor

from envs.counter_random import BITS, CounterRandom, scaled
from envs.rules.task import Outcome, State, Task, check_option, never, pick

COMMANDS = {
    "right": (1, 0),
    "down": (0, 1),
    "left": (-1, 0),
    "up": (0, -1),
    "stay": (0, 0),
    "right_down": (1, 1),
    "right_up": (1, -1),
    "left_down": (-1, 1),
    "left_up": (-1, -1),
}
"""What they add to column and row, in Memory Gym's order."""
DIRECTIONS = ((0, -1), (-1, 0), (0, 1), (1, 0))
"""North, west, south and east."""
TURN_LEFT, TURN_RIGHT, FORWARD = 1, 2, 3
WORTH = 0.1
"""Of a command that is obeyed."""


@dataclass(frozen=True)
class MortarMayhem(Task):
    """What both forms have in common."""

    arena_size: int
    allowed_commands: int
    command_show_duration: int = 3
    command_show_delay: int = 1
    explosion_duration: int = 2
    explosion_delay: int = 6

    action_names: ClassVar[tuple[str, ...]] = ("stay", "turn left", "turn right", "go forward")

    def __post_init__(self) -> None:
        check_option("arena_size", self.arena_size, 2, 6)
        check_option("allowed_commands", self.allowed_commands, 4, len(COMMANDS))
        for name in ("command_show_duration", "explosion_duration", "explosion_delay"):
            check_option(name, getattr(self, name), 1, 1000)
        check_option("command_show_delay", self.command_show_delay, 0, 1000)

    @property
    def observation_space(self) -> spaces.MultiDiscrete:
        size = self.arena_size
        return spaces.MultiDiscrete([size, size, 4, 1 + self.allowed_commands, 1 + size * size])

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(FORWARD + 1)

    @property
    def frames_each(self) -> int:
        """Steps in which one command is shown, with the pause after it."""
        return self.command_show_duration + self.command_show_delay

    @abstractmethod
    def command(self, state: State, number: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """Return which of `COMMANDS` one of each episode is."""

    @abstractmethod
    def inside(self, place: Int64[Tensor, "*n 2"]) -> Int64[Tensor, "*n 2"]:
        """Return where one stands who walks to a place."""

    @abstractmethod
    def complete_(self, state: State, is_complete: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Go on after the last command; return which episodes end."""

    def started(self, tile: Int64[Tensor, " n"], num_commands: int) -> State:
        """Return states in which nothing was shown yet, from bits for the tile to stand on."""
        tile = scaled(tile, self.arena_size**2)
        place = torch.stack((tile // self.arena_size, tile % self.arena_size), dim=1)
        zeros = torch.zeros_like(place[:, 0])
        return {
            "place": place,
            "direction": zeros.clone(),
            "num_commands": zeros + num_commands,
            "first_shown": zeros.clone(),  # the first of the commands that are being shown
            "frames_left": zeros + num_commands * self.frames_each,
            "current": zeros.clone(),  # the command that counts, and how many were judged
            "steps": zeros.clone(),  # since the last explosion
            "burnt": zeros.clone(),  # steps of this explosion
            "burns": never(zeros),
            "target": place.clone(),
            "observation": zeros.new_zeros(len(place), 5),
        }

    def shown_(self, state: State) -> State:
        """Aim at the first command, and show the first frame."""
        self.aim_(state, ~state["burns"])
        self.show_(state)
        self.look_(state)
        return state

    def show_(self, state: State) -> Bool[Tensor, " n"]:
        """Show the next frame where one is left; return where it was."""
        shows = state["frames_left"] > 0
        number = (state["num_commands"] - state["first_shown"]) * self.frames_each
        frame = number - state["frames_left"]
        state["frames_left"] -= shows.long()
        shown = state["first_shown"] + frame // self.frames_each
        is_pause = frame % self.frames_each >= self.command_show_duration
        command = self.command(state, shown.where(shows, 0))
        state["observation"][:, 3] = torch.where(shows & ~is_pause, 1 + command, 0)
        return shows

    def look_(self, state: State) -> None:
        """See all but commands."""
        seen, target = state["observation"], state["target"]
        seen[:, :2] = state["place"]
        seen[:, 2] = state["direction"]
        safe = 1 + target[:, 0] * self.arena_size + target[:, 1]
        seen[:, 4] = torch.where(state["burns"], safe, 0)

    def aim_(self, state: State, rows: Bool[Tensor, " n"]) -> None:
        """Move the target to where the current command sends it."""
        number = state["current"].where(rows, 0)
        target = state["target"]
        aimed = self.inside(target + offset(COMMANDS.values(), self.command(state, number)))
        target.copy_(torch.where(rows[:, None], aimed, target))

    def advance_(self, state: State, actions: Int64[Tensor, " n"]) -> Outcome:
        acts = ~self.show_(state)
        self._move_(state, actions, acts)
        on_target = (state["place"] == state["target"]).all(dim=1)

        steps, burns, burnt = state["steps"], state["burns"], state["burnt"]
        judged = acts & ~burns & (steps > 0) & (steps % self.explosion_delay == 0)
        state["current"] += judged.long()
        burns |= judged
        is_complete = judged & (state["current"] >= state["num_commands"])
        ends = self.complete_(state, is_complete)
        steps.copy_(torch.where(judged, 1, steps))

        in_fire = acts & burns
        goes_out = in_fire & (burnt > 0) & (burnt % self.explosion_duration == 0)
        burns &= ~goes_out
        burnt.copy_(torch.where(goes_out, 0, burnt + (in_fire & ~goes_out).long()))
        self.aim_(state, goes_out & (state["current"] < state["num_commands"]))
        steps += (acts & ~in_fire).long()

        dies = in_fire & ~goes_out & ~on_target
        self.look_(state)
        return Outcome(
            reward=torch.where(judged & on_target, WORTH, 0.0),
            terminated=dies | ends,
            truncated=never(steps),
            success=is_complete & on_target,
        )

    def _move_(self, state: State, actions: Tensor, acts: Tensor) -> None:
        direction, place = state["direction"], state["place"]
        turn = (actions == TURN_LEFT).long() - (actions == TURN_RIGHT).long()
        direction.copy_((direction + turn * acts.long()) % len(DIRECTIONS))
        ahead = self.inside(place + offset(DIRECTIONS, direction))
        goes = acts & (actions == FORWARD)
        place.copy_(torch.where(goes[:, None], ahead, place))


def offset(
    offsets: Collection[tuple[int, int]], number: Int64[Tensor, "*n"]
) -> Int64[Tensor, "*n 2"]:
    """Return one of up to 31 offsets, each part of which is -1, 0 or 1, for each number.

    They are read off the digits of two numbers: a table would have to be sent to a GPU.
    """
    packed = [
        sum((1 + part) << 2 * i for i, part in enumerate(parts))
        for parts in zip(*offsets, strict=True)
    ]
    return torch.stack([((digits >> 2 * number) & 3) - 1 for digits in packed], dim=-1)


@dataclass(frozen=True)
class MortarMayhemGrid(MortarMayhem):
    """Obey ten commands; walls end the grid, and no command leads into one."""

    arena_size: int = 5
    allowed_commands: int = 5
    command_count: int = 10

    original: ClassVar[str | None] = "GridMortarMayhemEnv"
    has_success: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("command_count", self.command_count, 1, 1000)

    @property
    def num_draws(self) -> int:
        return 1 + self.command_count

    @property
    def num_steps(self) -> int:
        obeying = self.explosion_delay + self.explosion_duration
        return self.command_count * (self.frames_each + obeying) - self.explosion_duration

    def start(self, bits: Int64[Tensor, "n draws"]) -> State:
        state = self.started(bits[:, 0], self.command_count)
        state["commands"] = self._draw(state["place"], bits[:, 1:])
        return self.shown_(state)

    def command(self, state: State, number: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        return pick(state["commands"], number)

    def inside(self, place: Int64[Tensor, "*n 2"]) -> Int64[Tensor, "*n 2"]:
        return place.clamp(0, self.arena_size - 1)

    def complete_(self, state: State, is_complete: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
        return is_complete

    def _draw(self, place: Int64[Tensor, "n 2"], bits: Int64[Tensor, "n C"]) -> Tensor:
        """Draw commands, each of those that do not lead into a wall from where it counts."""
        every = torch.arange(self.allowed_commands, device=bits.device)
        offsets = offset(COMMANDS.values(), every)
        commands = []
        for number in bits.unbind(dim=1):
            ends = place.unsqueeze(1) + offsets  # (n, allowed_commands, 2)
            fits = (ends == self.inside(ends)).all(dim=2)
            rank = scaled(number, fits.sum(dim=1)).unsqueeze(1)
            command = ((fits.cumsum(dim=1) == rank + 1) & fits).long().argmax(dim=1)
            place = place + offsets[command]
            commands.append(command)
        return torch.stack(commands, dim=1)

    @classmethod
    def of(cls, env: Any) -> MortarMayhemGrid:
        given = getattr(env, "reset_params", env.default_reset_parameters)
        names = ("command_count", "command_show_duration", "command_show_delay")
        names += ("explosion_duration", "explosion_delay")
        several = {name: given[name] for name in names if len(given[name]) != 1}
        if several:
            raise ValueError(f"load was given {several}, but here each option is one number")
        fixed = {"visual_feedback": True, "reward_command_success": WORTH}
        fixed |= {"reward_command_failure": 0, "reward_episode_success": 0}
        others = {name: given[name] for name, value in fixed.items() if given[name] != value}
        if others:
            raise ValueError(f"load was given {others}, but here it is {fixed}")
        chosen = {name: int(given[name][0]) for name in names}
        chosen |= {name: int(given[name]) for name in ("arena_size", "allowed_commands")}
        return cls(**chosen)

    def read(self, env: Any) -> dict[str, Any]:
        time, names = len(env.episode_rewards), list(COMMANDS)
        place = [int(part) for part in env.normalized_agent_position]
        target = [int(part) for part in env._target_pos]
        commands = [names.index(name) for name in env._commands]
        frame = min(time, self.command_count * self.frames_each - 1)
        shows = time == frame and frame % self.frames_each < self.command_show_duration
        direction, burns = env.agent.rotation // 90, env.arena.tiles_on
        shown = 1 + commands[frame // self.frames_each] if shows else 0
        safe = 1 + target[0] * self.arena_size + target[1] if burns else 0
        is_over = env._current_command >= self.command_count or (burns and place != target)
        return {
            "time": self.num_steps if is_over else time,
            "place": place,
            "direction": direction,
            "num_commands": self.command_count,
            "first_shown": 0,
            "frames_left": len(env._command_visualization),
            "current": env._current_command,
            "steps": env._command_steps,
            "burnt": env._command_verify_step,
            "burns": burns,
            "target": target,
            "commands": commands,
            "observation": [*place, direction, shown, safe],
        }


@dataclass(frozen=True)
class EndlessMortarMayhemGrid(MortarMayhem):
    """Obey one command, then two, and so on, on a grid without walls.

    A command is drawn when it is shown, so that an episode takes as much memory however long.
    """

    arena_size: int = 6
    allowed_commands: int = 9
    max_steps: int = 4096

    original: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("max_steps", self.max_steps, 1, 10**9)

    @property
    def num_draws(self) -> int:
        return 3

    @property
    def num_steps(self) -> int:
        return self.max_steps

    def start(self, bits: Int64[Tensor, "n draws"]) -> State:
        state = self.started(bits[:, 0], 1)
        state["deal"] = bits[:, 1] << BITS | bits[:, 2]  # the key of the commands
        return self.shown_(state)

    def advance_(self, state: State, actions: Int64[Tensor, " n"]) -> Outcome:
        outcome = super().advance_(state, actions)
        truncated = state["time"] == self.max_steps
        return outcome._replace(truncated=truncated, success=None)

    def command(self, state: State, number: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        return scaled(CounterRandom(state["deal"], number).bits(), self.allowed_commands)

    def inside(self, place: Int64[Tensor, "*n 2"]) -> Int64[Tensor, "*n 2"]:
        return place % self.arena_size

    def complete_(self, state: State, is_complete: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Begin again, with one more command, which is shown first."""
        num_commands = state["num_commands"]
        state["first_shown"].copy_(torch.where(is_complete, num_commands, state["first_shown"]))
        num_commands += is_complete.long()
        for name, value in (("current", 0), ("frames_left", self.frames_each)):
            state[name].copy_(torch.where(is_complete, value, state[name]))
        return never(num_commands)
