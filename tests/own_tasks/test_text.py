"""Words as ids."""

from __future__ import annotations

import itertools

import gymnasium
import minigrid  # noqa: F401
import numpy as np
import pytest
from gymnasium import spaces
from minigrid.core.constants import COLOR_NAMES, OBJECT_TO_IDX
from minigrid.core.mission import MissionSpace

from envs.observation_fields import flat_space
from envs.text import MAX_BYTES, MAX_WORDS, NUM_WORD_IDS, byte_ids, split_words, word_ids

BABYAI_MISSIONS = """
go to the a get pick up open door put next then and after you behind in front of left right on your
unlock toggle it with drop ,
"""


def mission_words() -> set[str]:
    """Every word of the missions of MiniGrid's ids."""
    words = {*BABYAI_MISSIONS.split(), *COLOR_NAMES, *OBJECT_TO_IDX}
    for env_id in gymnasium.registry:
        if env_id.startswith("MiniGrid-"):
            space = gymnasium.make(env_id, disable_env_checker=True).observation_space["mission"]  # type: ignore[index]
            placeholders = space.ordered_placeholders or []
            for values in itertools.islice(itertools.product(*placeholders), 200):
                words.update(split_words(space.mission_func(*values)))
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
    assert (ids[:9] > 0).all()  # a comma and a full stop are words
    assert (ids < NUM_WORD_IDS).all()
    assert (ids[9:] == 0).all()
    assert (word_ids("Go to the RED ball, then stop.") == ids).all()
    assert (word_ids("word " * MAX_WORDS) > 0).all()


def test_every_sign_is_seen() -> None:
    texts = ["<<", ">>", "go left", "go left!", "go, left", "gehe nach Süden", "gehe nach S den"]
    assert len({word_ids(text).tobytes() for text in texts}) == len(texts)
    texts += ["Go left", "go  left", "go left ", "", "\0", "\0\0", "\ud800"]
    assert len({byte_ids(text, 40, "text").tobytes() for text in texts}) == len(texts)


def test_bytes_are_those_of_the_text() -> None:
    ids = byte_ids("Süd", 6, "text")
    assert ids.dtype == np.uint8
    assert ids.tolist() == [*"Süd".encode(), 0, 0]


def test_what_is_cut_is_said() -> None:
    with pytest.warns(RuntimeWarning, match="'mission' has a text of more than the 3 words"):
        assert (word_ids("one two three four", 3) == word_ids("one two three", 3)).all()
    with pytest.warns(RuntimeWarning, match="'a.b' has a text of more than the 4 bytes"):
        assert bytes(byte_ids("Süden", 4, "a.b")) == "Süd".encode()


@pytest.mark.filterwarnings("ignore:.*out of date")
def test_missions_of_minigrid_are_words() -> None:
    """Of MAX_WORDS, as the tensors have them; BabyAI's longest have 41 and commas."""
    shapes = {}
    for env_id in gymnasium.registry:
        if env_id.startswith(("MiniGrid-", "BabyAI-GoToSeq")):
            env = gymnasium.make(env_id, disable_env_checker=True)
            flat = flat_space(env.observation_space, ["image"])
            if "mission" in flat.spaces:
                field = flat["mission"]
                assert (field.nvec == NUM_WORD_IDS).all()  # type: ignore[attr-defined]
                shapes[env_id] = field.shape
    assert len(shapes) > 20
    assert {shape for i, shape in shapes.items() if i.startswith("MiniGrid")} == {(MAX_WORDS,)}
    assert {shape for i, shape in shapes.items() if i.startswith("BabyAI")} == {(64,)}


def test_missions_whose_words_would_collide_are_bytes() -> None:
    words = [f"w{number}" for number in range(NUM_WORD_IDS + 1)]  # more than there are ids
    space = MissionSpace(lambda word: f"say {word}", [words])
    assert flat_space(space)["observation"] == spaces.Box(0, 255, (MAX_BYTES,), np.uint8)
    long = MissionSpace(lambda word: f"say {word}" + " and go" * 20, [["a", "b c"]])
    assert flat_space(long)["observation"].shape == (43,)


def test_texts_have_the_length_that_their_space_needs() -> None:
    for space, length in (
        (spaces.Text(20), 20),
        (spaces.Text(20, charset="aé"), 40),
        (spaces.Text(5000), MAX_BYTES),
    ):
        assert flat_space(space)["observation"] == spaces.Box(0, 255, (length,), np.uint8)
