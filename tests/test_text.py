"""Words as ids."""

from __future__ import annotations

import itertools

import gymnasium
import minigrid  # noqa: F401
import pytest
from minigrid.core.constants import COLOR_NAMES, OBJECT_TO_IDX

from envs.text import MAX_WORDS, NUM_WORD_IDS, word_ids

BABYAI_MISSIONS = """
go to the a get pick up open door put next then and after you behind in front of left right on your
unlock toggle it with drop
"""


def mission_words() -> set[str]:
    """Every word of the missions of MiniGrid's ids."""
    words = {*BABYAI_MISSIONS.split(), *COLOR_NAMES, *OBJECT_TO_IDX}
    for env_id in gymnasium.registry:
        if env_id.startswith("MiniGrid-"):
            space = gymnasium.make(env_id, disable_env_checker=True).observation_space["mission"]  # type: ignore[index]
            placeholders = space.ordered_placeholders or []
            for values in itertools.islice(itertools.product(*placeholders), 200):
                words.update(space.mission_func(*values).lower().replace(",", " ").split())
            words.update(
                word for values in placeholders for text in values for word in text.split()
            )
    return words


@pytest.mark.filterwarnings("ignore:.*out of date")
def test_no_two_words_of_minigrid_share_an_id() -> None:
    words = sorted(mission_words())
    assert len(words) > 60
    by_id: dict[int, str] = {}
    for word in words:
        identifier = int(word_ids(word)[0])
        assert by_id.setdefault(identifier, word) == word, (word, by_id[identifier])


def test_ids_are_padded_and_in_range() -> None:
    ids = word_ids("Go to the RED ball, then stop.")
    assert ids.shape == (MAX_WORDS,)
    assert (ids[:7] > 0).all()
    assert (ids < NUM_WORD_IDS).all()
    assert (ids[7:] == 0).all()
    assert (word_ids("go to the red ball then stop") == ids).all()
    assert (word_ids("word " * 100) > 0).all()
