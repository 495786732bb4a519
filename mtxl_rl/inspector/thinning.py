"""A list of what each step shows that keeps within a number of bytes."""

from __future__ import annotations


class Thinned:
    """Keeps the contents of every n-th step, where n doubles as often as it must.

    What is equal is stored once. Important steps are kept as long as there is room.

    Args:
        max_bytes: of all that is stored.
    """

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._stride = 1
        self._places: dict[bytes, int] = {}
        self._kept: list[tuple[int, bytes, bool]] = []
        self._num_bytes = 0

    def add(self, step: int, content: bytes, is_important: bool = False) -> None:
        """Store what a step shows; steps come in their order."""
        if step % self._stride and not is_important:
            return
        self._kept.append((step, content, is_important))
        if content not in self._places:
            self._places[content] = len(self._places)
            self._num_bytes += len(content)
        while self._num_bytes > self._max_bytes and len(self._kept) > 1:
            self._stride *= 2
            self._thin()

    def wants(self, step: int) -> bool:
        """Return whether `add` would store a step that is not important."""
        return step % self._stride == 0

    @property
    def steps(self) -> list[int]:
        """The steps that are stored."""
        return [step for step, _, _ in self._kept]

    @property
    def places(self) -> list[int]:
        """Which of `contents` each of the steps shows."""
        return [self._places[content] for _, content, _ in self._kept]

    @property
    def contents(self) -> list[bytes]:
        """What is stored."""
        return list(self._places)

    def _thin(self) -> None:
        too_many = self._stride > len(self._kept)  # important ones are most of it
        self._kept = [
            (step, content, is_important)
            for place, (step, content, is_important) in enumerate(self._kept)
            if step % self._stride == 0 or (is_important and not (too_many and place % 2))
        ]
        self._places = {}
        for _, content, _ in self._kept:
            self._places.setdefault(content, len(self._places))
        self._num_bytes = sum(map(len, self._places))
