"""POPGym's Concentration: turn up two cards at a time; a pair stays up.

Oddities of POPGym, kept: the second card of a try is seen for one step, beside the first; to try a
card that is up costs 1 or 2 failures and turns the other one down; the same card twice is a
failure; the last pair in the very last step is terminated and truncated at once. Shapes: n envs, N
cards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Int64
from torch import Tensor

from envs.popgym.cards import DECK_SIZE, MAX_DECKS, NUM_VALUES, faces, shuffled
from envs.rules.task import Outcome, State, Task, check_option

NONE = -1
"""In place of a card's place."""


@dataclass(frozen=True)
class Concentration(Task):
    """Find the pairs."""

    num_decks: int = 1
    deck_type: str = "ranks"

    def __post_init__(self) -> None:
        check_option("num_decks", self.num_decks, 1, MAX_DECKS)
        if self.deck_type not in ("colors", "ranks"):
            raise ValueError(f"deck_type={self.deck_type!r} must be colors or ranks; name one")

    @property
    def num_cards(self) -> int:
        """N."""
        return self.num_decks * DECK_SIZE

    @property
    def num_draws(self) -> int:
        return self.num_cards

    @property
    def face_down(self) -> int:
        """What a card shows that is not up."""
        return NUM_VALUES[self.deck_type]

    @property
    def num_steps(self) -> int:
        return math.ceil(2 * self.num_cards - self.num_cards / (2 * self.num_cards - 1))

    @property
    def observation_space(self) -> spaces.MultiDiscrete:
        return spaces.MultiDiscrete([self.face_down + 1] * self.num_cards)

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(self.num_cards)

    @classmethod
    def of(cls, env: Any) -> Concentration:
        return cls(env.deck.num_decks, "colors" if env.facedown_card == 2 else "ranks")

    def start(self, bits: Int64[Tensor, "n N"]) -> State:
        cards = faces(shuffled(bits), self.deck_type)
        return {
            "cards": cards,
            "is_up": torch.zeros_like(cards, dtype=torch.bool),
            "num_up": bits.new_zeros(len(cards)),
            "first": bits.new_full((len(cards),), NONE),  # the place of the card that waits
            "shown": bits.new_zeros(len(cards), 2),  # the places that the last step has shown
            "observation": torch.full_like(bits, self.face_down),
        }

    def advance_(self, state: State, actions: Int64[Tensor, " n"]) -> Outcome:
        cards, is_up, seen = state["cards"], state["is_up"], state["observation"]
        first, shown = state["first"], state["shown"]
        # what the last step has shown is turned down, unless it was a pair
        faces_before = cards.gather(1, shown).long()
        hidden = faces_before.masked_fill(~is_up.gather(1, shown), self.face_down)
        seen.scatter_(1, shown, hidden)
        has_first = first >= 0
        other = torch.where(has_first, first, actions)
        torch.stack((other, actions), dim=1, out=shown)
        values = cards.gather(1, shown)
        seen.scatter_(1, shown, values.long())
        were_up = is_up.gather(1, shown)
        is_refused = were_up[:, 1]
        is_equal = (values[:, 0] == values[:, 1]) & (other != actions)
        is_pair = is_equal & ~is_refused
        is_up.scatter_(1, shown, were_up | is_pair.unsqueeze(1))
        state["num_up"].add_(is_pair, alpha=2)
        is_over = has_first | is_refused
        first.copy_(actions.masked_fill(is_over, NONE))
        failure = (is_over & ~is_pair) * (1 + has_first.long()) * (-1 / self.num_steps)
        return Outcome(
            reward=failure.masked_fill(is_pair, 1 / (self.num_cards // 2)),
            terminated=state["num_up"] == self.num_cards,
            truncated=state["time"] == self.num_steps,
        )

    def read(self, env: Any) -> dict[str, Any]:
        is_up = np.zeros(self.num_cards, dtype=bool)
        is_up[env.deck["face_up_idx"]] = True
        shown = env.last_in_play_idx or [0]
        return {
            "time": env.curr_step,
            "cards": env.state,
            "is_up": is_up,
            "num_up": is_up.sum(),
            "first": (env.deck["in_play_idx"] or [NONE])[0],
            "shown": [shown[0], shown[-1]],
            "observation": env.obs,
        }
