"""Stop strings, matched while the text comes."""

from collections.abc import Sequence


class StopMatcher:
    """Finds where the first stop string begins in a text that is fed piece by piece.

    The first is the one that is complete first, whatever the pieces are; of several that are complete at one character
    it is the longest. Each character is looked at once for each stop string (Knuth, Morris, Pratt 1977).
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [(stop, _borders(stop)) for stop in stops]
        self._matched = [0] * len(stops)  # how many characters of each stop string the text ends with
        self._size = 0
        self.found: int | None = None

    @property
    def held(self) -> int:
        """How many characters at the end of the text may be the beginning of a stop string."""
        return max(self._matched, default=0)

    def feed(self, text: str) -> None:
        """Look at more text. Once a stop string is found, the rest of the text is not looked at."""
        if not self._stops or self.found is not None:
            return
        for character in text:
            self._size += 1
            complete = 0
            for number, (stop, borders) in enumerate(self._stops):
                matched = self._matched[number]
                while matched and stop[matched] != character:
                    matched = borders[matched - 1]
                matched += stop[matched] == character
                self._matched[number] = matched
                if matched == len(stop):
                    complete = max(complete, matched)
            if complete:
                self.found = self._size - complete
                return


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of ``stops`` begins in ``text``; None if it holds none of them."""
    matcher = StopMatcher(stops)
    matcher.feed(text)
    return matcher.found


def _borders(stop: str) -> list[int]:
    """For each beginning of ``stop``, the length of the longest shorter beginning that it ends with."""
    borders, size = [0], 0
    for character in stop[1:]:
        while size and stop[size] != character:
            size = borders[size - 1]
        size += stop[size] == character
        borders.append(size)
    return borders
