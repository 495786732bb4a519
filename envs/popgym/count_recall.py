"""POPGym's CountRecall: how often has this card been dealt so far?

Two decks are dealt card by card: values, which are to be counted, and queries, which ask for a
count. The answer to a query counts the value that is shown with it. Oddity of POPGym, kept: its
`error_clamp` does nothing: a count that is off by one is as wrong as any. Shapes: n envs, N cards,
V values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Int64
from torch import Tensor

from envs.popgym.cards import DECK_SIZE, MAX_DECKS, NUM_VALUES, faces, read_deck, shuffled
from envs.popgym.task import Outcome, PopgymTask, State, check_option, never


@dataclass(frozen=True)
class CountRecall(PopgymTask):
    """Say how often the card that is asked for has been dealt."""

    num_decks: int = 1
    deck_type: str = "colors"

    def __post_init__(self) -> None:
        check_option("num_decks", self.num_decks, 1, MAX_DECKS)
        if self.deck_type not in NUM_VALUES:
            raise ValueError(
                f"deck_type={self.deck_type!r} must be one of {', '.join(NUM_VALUES)}; name one"
            )

    @property
    def num_cards(self) -> int:
        """Of the deck of values, and of the one of queries."""
        return self.num_decks * DECK_SIZE

    @property
    def num_draws(self) -> int:
        return 2 * self.num_cards

    @property
    def num_steps(self) -> int:
        return self.num_cards - 1

    @property
    def observation_space(self) -> spaces.MultiDiscrete:
        return spaces.MultiDiscrete([NUM_VALUES[self.deck_type]] * 2)

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(self.num_cards // NUM_VALUES[self.deck_type] + 1)

    @classmethod
    def of(cls, env: Any) -> CountRecall:
        names = {size: name for name, size in NUM_VALUES.items()}
        return cls(env.value_deck.num_decks, names[env.num_distinct_cards])

    def start(self, bits: Int64[Tensor, "n draws"]) -> State:
        decks = [faces(shuffled(part), self.deck_type) for part in bits.chunk(2, dim=1)]
        cards = torch.stack(decks, dim=2)  # (n, N, 2)
        first = cards[:, 0].long()
        counts = first.new_zeros(len(first), NUM_VALUES[self.deck_type])
        counts.scatter_(1, first[:, :1], 1)
        return {"cards": cards, "counts": counts, "observation": first}

    def advance_(self, state: State, actions: Int64[Tensor, " n"]) -> Outcome:
        time, seen, counts = state["time"], state["observation"], state["counts"]
        is_right = counts.gather(1, seen[:, 1:]).squeeze(1) == actions
        place = time.view(-1, 1, 1).expand(-1, 1, 2)
        seen.copy_(state["cards"].gather(1, place).squeeze(1))
        counts.scatter_(1, seen[:, :1], counts.gather(1, seen[:, :1]) + 1)
        worth = 1 / self.num_steps
        return Outcome(
            reward=torch.where(is_right, worth, -worth),
            terminated=time == self.num_steps,
            truncated=never(time),
        )

    def read(self, env: Any) -> dict[str, Any]:
        decks = [read_deck(deck, self.deck_type) for deck in (env.value_deck, env.query_deck)]
        return {
            "time": self.num_steps - len(env.value_deck),
            "cards": np.stack(decks, axis=1),
            "counts": env.counts,
            "observation": [env.value, env.query],
        }
