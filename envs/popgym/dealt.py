"""POPGym's tasks on one deck whose cards are shown one by one, whatever the agent does.

Suits are 0 to 3, ranks 0 to 12. Oddities of POPGym, kept:

- RepeatPrevious: a `k` of 4 asks for the suit of three steps before the one that is shown.
- Autoencode: the last card is shown with mode 0 (play), and then a suit of 0 until the end.
- HigherLower: action 0 is "higher"; the same rank again gives 0, whatever was said.

An episode of N cards has N - 1 steps (Autoencode 2 N - 1). Shapes: n envs, N cards.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from jaxtyping import Int64
from torch import Tensor

from envs.popgym.cards import (
    DECK_SIZE,
    MAX_DECKS,
    NUM_SUITS,
    NUM_VALUES,
    faces,
    read_deck,
    shuffled,
)
from envs.popgym.task import Outcome, PopgymTask, State, check_option, never, pick


@dataclass(frozen=True)
class DealtTask(PopgymTask):
    """A deck is dealt card by card."""

    num_decks: int = 1
    face: ClassVar[str] = "suits"

    def __post_init__(self) -> None:
        check_option("num_decks", self.num_decks, 1, MAX_DECKS)

    @property
    def observation_space(self) -> spaces.Space:
        return spaces.Discrete(NUM_VALUES[self.face])

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(NUM_SUITS)

    @property
    def num_draws(self) -> int:
        return self.num_decks * DECK_SIZE

    @property
    def num_steps(self) -> int:
        return self.num_draws - 1

    @classmethod
    def of(cls, env: Any) -> DealtTask:
        return cls(num_decks=env.deck.num_decks)

    def start(self, bits: Int64[Tensor, "n N"]) -> State:
        deck = faces(shuffled(bits), self.face)
        return {"deck": deck, "observation": deck[:, 0].long()}

    def advance_(self, state: State, actions: Int64[Tensor, " n"]) -> Outcome:
        """Reward the answer and show the next card, until all have been dealt."""
        card = pick(state["deck"], state["time"]).long()
        reward = self.reward(state, actions, card)
        state["observation"].copy_(card)
        is_last = state["time"] == self.num_steps
        return Outcome(reward, terminated=is_last, truncated=never(state["time"]))

    @abstractmethod
    def reward(
        self, state: State, actions: Int64[Tensor, " n"], next_card: Int64[Tensor, " n"]
    ) -> Tensor:
        """Return what the answers are worth."""

    def read(self, env: Any) -> dict[str, Any]:
        deck, time = read_deck(env.deck, self.face), self.num_steps - len(env.deck)
        return {"time": time, "deck": deck, "observation": deck[max(time, 0)]}


class RepeatFirst(DealtTask):
    """Say the suit of the first card at every step."""

    def reward(
        self, state: State, actions: Int64[Tensor, " n"], next_card: Int64[Tensor, " n"]
    ) -> Tensor:
        worth = 1 / self.num_steps
        return torch.where(actions == state["deck"][:, 0], worth, -worth)


@dataclass(frozen=True)
class RepeatPrevious(DealtTask):
    """Say the suit of the card k - 1 steps before the one that is shown."""

    k: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("k", self.k, 1, self.num_draws - 1)

    @classmethod
    def of(cls, env: Any) -> RepeatPrevious:
        return cls(num_decks=env.deck.num_decks, k=env.k)

    def reward(
        self, state: State, actions: Int64[Tensor, " n"], next_card: Int64[Tensor, " n"]
    ) -> Tensor:
        worth = 1 / (self.num_draws - self.k)
        place = state["time"] - self.k  # the first cards can not be asked for
        answer = pick(state["deck"], place.clamp(min=0))
        return torch.where(actions == answer, worth, -worth) * (place >= 0)


class HigherLower(DealtTask):
    """Say whether the next card's rank is higher than the one that is shown."""

    face = "ranks"

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    def reward(
        self, state: State, actions: Int64[Tensor, " n"], next_card: Int64[Tensor, " n"]
    ) -> Tensor:
        direction = (next_card - state["observation"]).sign()
        return direction * (1 - 2 * actions) * (1 / self.num_draws)


class Autoencode(DealtTask):
    """Watch the cards of a deck (mode 1), then say their suits, the last one first (mode 0)."""

    @property
    def observation_space(self) -> spaces.Tuple:
        return spaces.Tuple((spaces.Discrete(2), spaces.Discrete(NUM_SUITS)))

    @property
    def num_steps(self) -> int:
        return 2 * self.num_draws - 1

    def start(self, bits: Int64[Tensor, "n N"]) -> State:
        deck = faces(shuffled(bits), self.face)
        first = deck[:, 0].long()
        return {"deck": deck, "0": torch.ones_like(first), "1": first}

    def advance_(self, state: State, actions: Int64[Tensor, " n"]) -> Outcome:
        time, num_cards = state["time"], self.num_draws
        # there and back again: a card that is shown, or one that is asked for
        card = pick(state["deck"], torch.minimum(time, self.num_steps - time)).long()
        is_shown = time < num_cards
        state["0"].copy_(time < num_cards - 1)
        torch.mul(card, is_shown, out=state["1"])
        reward = self.reward(state, actions, card).masked_fill(is_shown, 0.0)
        return Outcome(reward, terminated=time == self.num_steps, truncated=never(time))

    def reward(
        self, state: State, actions: Int64[Tensor, " n"], next_card: Int64[Tensor, " n"]
    ) -> Tensor:
        worth = 1 / self.num_draws
        return torch.where(actions == next_card, worth, -worth)

    def read(self, env: Any) -> dict[str, Any]:
        deck, hand_size = read_deck(env.deck, self.face), env.deck.hand_size("system")
        is_shown = len(env.deck) > 0 or hand_size == self.num_draws
        time = hand_size - 1 if is_shown else self.num_steps - hand_size
        card = deck[max(time, 0)] if is_shown else 0
        return {"time": time, "deck": deck, "0": int(env.mode), "1": card}
