"""POPGym's tasks on decks whose cards are shown one by one, whatever the agent does.

So an episode is a script: what each step shows, and the answer that leads there. Colours are 0 and
1, suits 0 to 3, ranks 0 to 12. Oddities of POPGym, kept:

- RepeatFirst: nothing says that the first card is the first.
- RepeatPrevious: a `k` of 4 asks for the suit of three steps before the one that is shown.
- Autoencode: the last card is shown with mode 0 (play), and then a suit of 0 until the end.
- HigherLower: action 0 is "higher"; the same rank again gives 0, whatever was said.
- CountRecall: its `error_clamp` does nothing: off by one is as wrong as any. The card that is shown
  counts already.

An episode of N cards has N - 1 steps (Autoencode 2 N - 1). Shapes: n envs, N cards, T steps.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from jaxtyping import Int16, Int64
from torch import Tensor

from envs.popgym.cards import DECK_SIZE, MAX_DECKS, NUM_VALUES, faces, read_deck, shuffled
from envs.rules.task import Outcome, State, Task, check_option, never

NOT_ASKED = -1
"""In place of an answer: no action is rewarded."""
Script = Int16[Tensor, "n times columns"]
"""What is seen at each time, in one column or two, and the answer of the step before it."""


@dataclass(frozen=True)
class DealtTask(Task):
    """A deck is dealt card by card, and answers are right or wrong."""

    num_decks: int = 1
    face: ClassVar[str] = "suits"
    columns: ClassVar[dict[str, int | slice]] = {"observation": 0}

    def __post_init__(self) -> None:
        check_option("num_decks", self.num_decks, 1, MAX_DECKS)

    @property
    def observation_space(self) -> spaces.Space:
        return spaces.Discrete(NUM_VALUES[self.face])

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(NUM_VALUES["suits"])

    @property
    def num_cards(self) -> int:
        """N."""
        return self.num_decks * DECK_SIZE

    @property
    def num_draws(self) -> int:
        return self.num_cards

    @property
    def num_steps(self) -> int:
        return self.num_cards - 1

    @property
    def worth(self) -> float:
        """Of a right answer."""
        return 1 / self.num_steps

    @classmethod
    def of(cls, env: Any) -> DealtTask:
        return cls(num_decks=env.deck.num_decks)

    @abstractmethod
    def script(self, deck: Int16[Tensor, "n N"]) -> Script:
        """Return what decks make of episodes."""

    def start(self, bits: Int64[Tensor, "n N"]) -> State:
        return self._state(self.script(faces(shuffled(bits), self.face)), 0)

    def advance_(self, state: State, actions: Int64[Tensor, " n"]) -> Outcome:
        script, time = state["script"], state["time"]
        num_envs, num_times, _ = script.shape
        rows = torch.arange(0, num_envs * num_times, num_times, device=time.device)
        line = script.flatten(0, 1).index_select(0, rows + time).long()
        for name, column in self.columns.items():
            state[name].copy_(line[:, column])
        answer = line[:, -1]
        reward = torch.where(actions == answer, self.worth, -self.worth)
        return Outcome(
            reward=reward.masked_fill(answer == NOT_ASKED, 0.0),
            terminated=time == self.num_steps,
            truncated=never(time),
        )

    def read(self, env: Any) -> dict[str, Any]:
        deck = torch.from_numpy(read_deck(env.deck, self.face)).unsqueeze(0)
        return self._read(self.script(deck), self.num_steps - len(env.deck))

    def _state(self, script: Script, time: int) -> State:
        """Return the state at a time; where no episode has started that of the first."""
        line = script[:, max(time, 0)].long()
        seen = {name: line[:, column].clone() for name, column in self.columns.items()}
        return {"script": script, **seen}

    def _read(self, script: Script, time: int) -> dict[str, Any]:
        state = self._state(script, time)
        return {"time": time, **{name: value[0].numpy() for name, value in state.items()}}


class RepeatFirst(DealtTask):
    """Say the suit of the first card at every step."""

    def script(self, deck: Int16[Tensor, "n N"]) -> Script:
        return torch.stack((deck, deck[:, :1].expand_as(deck)), dim=2)


@dataclass(frozen=True)
class RepeatPrevious(DealtTask):
    """Say the suit of the card k - 1 steps before the one that is shown."""

    k: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("k", self.k, 1, self.num_steps)

    @property
    def worth(self) -> float:
        return 1 / (self.num_cards - self.k)

    @classmethod
    def of(cls, env: Any) -> RepeatPrevious:
        return cls(num_decks=env.deck.num_decks, k=env.k)

    def script(self, deck: Int16[Tensor, "n N"]) -> Script:
        not_asked = torch.full_like(deck[:, : self.k], NOT_ASKED)
        return torch.stack((deck, torch.cat((not_asked, deck[:, : -self.k]), dim=1)), dim=2)


class HigherLower(DealtTask):
    """Say whether the next card's rank is higher (0) or lower (1) than the one that is shown."""

    face = "ranks"

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(2)

    @property
    def worth(self) -> float:
        return 1 / self.num_cards

    def script(self, deck: Int16[Tensor, "n N"]) -> Script:
        step = deck.diff(dim=1, prepend=deck[:, :1])
        answer = (step < 0).to(deck.dtype).masked_fill(step == 0, NOT_ASKED)
        return torch.stack((deck, answer), dim=2)


class Autoencode(DealtTask):
    """Watch the cards of a deck (mode 1), then say their suits, the last one first (mode 0)."""

    columns: ClassVar[dict[str, int | slice]] = {"0": 0, "1": 1}

    @property
    def observation_space(self) -> spaces.Tuple:
        return spaces.Tuple((spaces.Discrete(2), super().observation_space))

    @property
    def num_steps(self) -> int:
        return 2 * self.num_cards - 1

    @property
    def worth(self) -> float:
        return 1 / self.num_cards

    def script(self, deck: Int16[Tensor, "n N"]) -> Script:
        nothing = torch.zeros_like(deck)
        mode = torch.ones_like(deck)
        mode[:, -1] = 0
        return torch.stack(
            (
                torch.cat((mode, nothing), dim=1),
                torch.cat((deck, nothing), dim=1),
                torch.cat((torch.full_like(deck, NOT_ASKED), deck.flip(1)), dim=1),
            ),
            dim=2,
        )

    def read(self, env: Any) -> dict[str, Any]:
        deck, hand_size = env.deck, env.deck.hand_size("system")
        is_shown = len(deck) > 0 or hand_size == self.num_cards
        time = hand_size - 1 if is_shown else self.num_steps - hand_size
        cards = torch.from_numpy(read_deck(deck, self.face)).unsqueeze(0)
        return self._read(self.script(cards), time)


@dataclass(frozen=True)
class CountRecall(DealtTask):
    """Say how often the card that is asked for has been dealt.

    A second deck asks: each step shows a card of the first, which counts, and one of the second.
    """

    deck_type: str = "colors"
    columns: ClassVar[dict[str, int | slice]] = {"observation": slice(2)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.deck_type not in NUM_VALUES:
            raise ValueError(
                f"deck_type={self.deck_type!r} must be one of {', '.join(NUM_VALUES)}; name one"
            )

    @property
    def num_values(self) -> int:
        """Of a card."""
        return NUM_VALUES[self.deck_type]

    @property
    def num_draws(self) -> int:
        return 2 * self.num_cards

    @property
    def observation_space(self) -> spaces.MultiDiscrete:
        return spaces.MultiDiscrete([self.num_values] * 2)

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(self.num_cards // self.num_values + 1)

    @classmethod
    def of(cls, env: Any) -> CountRecall:
        names = {size: name for name, size in NUM_VALUES.items()}
        return cls(env.value_deck.num_decks, names[env.num_distinct_cards])

    def start(self, bits: Int64[Tensor, "n draws"]) -> State:
        decks = [faces(shuffled(part), self.deck_type) for part in bits.chunk(2, dim=1)]
        return self._state(self.script(torch.cat(decks, dim=1)), 0)

    def script(self, deck: Int16[Tensor, "n draws"]) -> Script:
        values, queries = deck.chunk(2, dim=1)
        each = torch.arange(self.num_values, device=deck.device).unsqueeze(1)
        counts = (values.unsqueeze(1) == each).cumsum(2, dtype=deck.dtype)  # (n, values, N)
        answer = counts.gather(1, queries.long().unsqueeze(1)).squeeze(1)
        not_asked = torch.full_like(answer[:, :1], NOT_ASKED)
        return torch.stack((values, queries, torch.cat((not_asked, answer[:, :-1]), dim=1)), dim=2)

    def read(self, env: Any) -> dict[str, Any]:
        decks = [read_deck(deck, self.deck_type) for deck in (env.value_deck, env.query_deck)]
        cards = torch.cat([torch.from_numpy(deck) for deck in decks]).unsqueeze(0)
        return self._read(self.script(cards), self.num_steps - len(env.value_deck))
