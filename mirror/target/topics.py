"""Can one topic mean two trips, or a trip and a user's own channel? With ids that are text it easily can: who makes a
trip `messages-rome` would enter the channel of Rome through `trip-{id}` beside `trip-messages-{id}`.

Decided exactly. A pattern is an automaton that knows which letters are the id's. Two of them read the same topic side
by side. While both see the id in the same place it is one id. Where the places differ, the ids do, too, as soon as one
of their letters can be chosen freely; else the other pattern's literals force each letter, a queue compares them."""

from __future__ import annotations

import re
import string
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement

from mirror.errors import ConfigError
from mirror.mapping import AccessOptions

Letters = frozenset[str]

_PLACE = re.compile(r"(\{id\}|\{epoch\}|\{sub\}|\*)")
_DIGITS = frozenset(string.digits)
_KNOWN = frozenset(string.ascii_lowercase + string.hexdigits + "-:")
_LARGEST = {"integer": 2**31 - 1, "bigint": 2**63 - 1}
CURE = (
    'Let each begin with a word of its own and ":", which no id has: '
    'topics = ["trip:{id}", "trip-messages:{id}"], announce = "user:{sub}".'
)


@dataclass(frozen=True, slots=True)
class Ambiguity:
    """One topic, and what it means to each of two patterns, which may be the same one."""

    patterns: tuple[str, str]
    topic: str
    meanings: tuple[str, ...]

    def __str__(self) -> str:
        names = " and ".join(f'"{pattern}"' for pattern in dict.fromkeys(self.patterns))
        verb = "is" if len(set(self.patterns)) == 1 else "are"
        meanings = " and of ".join(self.meanings)
        return f'[access] {names} {verb} ambiguous: "{self.topic}" is the channel of {meanings}'


def refuse_ambiguous(access: AccessOptions, trip_id: str) -> None:
    found = ambiguity(access, trip_id)
    if found is not None:
        raise ConfigError(str(found), hint=CURE)


def ambiguity(access: AccessOptions, trip_id: str) -> Ambiguity | None:
    """That one pattern with an epoch is asked first makes nothing safe: its trip is another one's channel then."""
    alphabet = _KNOWN.union(*access.topics, access.announce or "")
    machines = [(topic, _machine(topic, trip_id, alphabet)) for topic in access.topics]
    for (one, left), (other, right) in combinations_with_replacement(machines, 2):
        folds = trip_id == "uuid"
        way = _meeting(left, right, _Compared(folds=folds))
        if way is not None:
            topic = _of_two_ids(way, str.lower if folds else str)
            return Ambiguity((one, other), topic, tuple(f'trip "{name}"' for name in _ids(topic, way)))
    own = _machine(access.announce, "text", alphabet) if access.announce else None
    for one, machine in machines:
        way = _meeting(own, machine, _DIFFER) if own else None
        if way is not None:
            topic = _plain(way)
            sub, trip = _ids(topic, way)
            return Ambiguity((access.announce or "", one), topic, (f'user "{sub}"', f'trip "{trip}"'))
    return None


def stops(topic: str) -> str:
    """What an id that is text does not contain: the colon, and what the pattern goes on with when more that is free
    comes later."""
    after = topic.split("{id}")[1]
    return ":" + (after[0] if re.search(r"\*|\{epoch\}", after) else "")


@dataclass(frozen=True, slots=True)
class _Edge:
    letters: Letters
    to: int
    is_id: bool


@dataclass
class _Machine:
    """Begins in state 0 and ends in `end`, the state that was made last."""

    edges: list[list[_Edge]] = field(default_factory=lambda: [[]])
    end: int = 0

    def state(self) -> int:
        self.edges.append([])
        return len(self.edges) - 1

    def edge(self, start: int, letters: Letters, to: int, *, is_id: bool = False) -> None:
        self.edges[start].append(_Edge(letters, to, is_id))

    def one(self, letters: Letters, *, is_id: bool = False) -> None:
        start, self.end = self.end, self.state()
        self.edge(start, letters, self.end, is_id=is_id)

    def some(self, letters: Letters, *, is_id: bool = False) -> None:
        self.one(letters, is_id=is_id)
        self.edge(self.end, letters, self.end, is_id=is_id)

    def integer(self, largest: int) -> None:
        """As PostgreSQL writes it: no zero before it, no plus, in its range."""
        start, minus, end = self.end, self.state(), self.state()
        self.edge(start, frozenset("0"), end, is_id=True)
        self.edge(start, frozenset("-"), minus, is_id=True)
        self._positive(start, end, str(largest))
        self._positive(minus, end, str(largest + 1))
        self.end = end

    def _positive(self, start: int, end: int, largest: str) -> None:
        shorter, as_long = start, start
        loose = [end, *(self.state() for _ in largest[1:])]  # so many digits are missing, and any will do
        for rest in range(1, len(largest)):
            self.edge(loose[rest], _DIGITS, loose[rest - 1], is_id=True)
        for n, digit in enumerate(largest):
            rest = len(largest) - n - 1
            digits = _DIGITS - {"0"} if n == 0 else _DIGITS
            smaller = frozenset(d for d in digits if d < digit)
            if smaller:
                self.edge(as_long, smaller, loose[rest], is_id=True)
            equal = self.state() if rest else end
            self.edge(as_long, frozenset(digit), equal, is_id=True)
            as_long = equal
            if rest:
                longer = self.state()
                self.edge(shorter, digits, longer, is_id=True)
                self.edge(shorter, digits, end, is_id=True)
                shorter = longer


def _machine(pattern: str, trip_id: str, alphabet: Letters) -> _Machine:
    machine = _Machine()
    for part in _PLACE.split(pattern):
        match part:
            case "*":
                machine.edge(machine.end, alphabet, machine.end)
            case "{epoch}":
                machine.some(_DIGITS)
            case "{sub}":
                machine.some(alphabet, is_id=True)
            case "{id}" if trip_id == "uuid":
                for letter in "h" * 8 + "-hhhh" * 3 + "-" + "h" * 12:
                    machine.one(frozenset(string.hexdigits if letter == "h" else letter), is_id=True)
            case "{id}" if trip_id in _LARGEST:
                machine.integer(_LARGEST[trip_id])
            case "{id}":
                machine.some(alphabet - set(stops(pattern)), is_id=True)
            case _:
                for letter in part:
                    machine.one(frozenset(letter))
    return machine


@dataclass(frozen=True, slots=True)
class _Compared:
    """Of the two ids, as far as they are read. `first`: where they are in different places, which of them began first;
    `queue`: its letters that the other one has yet to repeat. A uuid is the same one in upper case (`folds`)."""

    folds: bool = False
    differ: bool = False
    begun: bool = False
    first: int | None = None
    queue: str = ""

    @property
    def is_two(self) -> bool:
        return self.differ or bool(self.queue)

    def read(self, letters: Letters, *places: bool) -> _Compared:
        if self.differ or not any(places):
            return self
        if self.first is not None:
            return self._compare(letters, places[self.first], places[1 - self.first])
        if all(places):
            return replace(self, begun=True)
        return _DIFFER if self.begun else replace(self, first=places.index(True)).read(letters, *places)

    def _compare(self, letters: Letters, of_first: bool, of_second: bool) -> _Compared:
        if len(letters) > 1:
            return _DIFFER
        (letter,) = letters
        letter = letter.lower() if self.folds else letter
        queue = self.queue + (letter if of_first else "")
        if of_second and not queue.startswith(letter):
            return _DIFFER
        return replace(self, queue=queue[1:] if of_second else queue)


_DIFFER = _Compared(differ=True)
_Place = tuple[int, int, _Compared]
_Read = tuple[Letters, bool, bool]


def _meeting(left: _Machine, right: _Machine, begin: _Compared) -> list[_Read] | None:
    """The shortest way that both can read to their ends with two ids: what each letter may be, and whose id has it."""
    start: _Place = (0, 0, begin)
    came: dict[_Place, tuple[_Place, _Read] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        place = waiting.popleft()
        if place[0] == left.end and place[1] == right.end and place[2].is_two:
            return _way(came, place)
        for after, read in _steps(left, right, place):
            if after not in came:
                came[after] = place, read
                waiting.append(after)
    return None


def _steps(left: _Machine, right: _Machine, place: _Place) -> Iterator[tuple[_Place, _Read]]:
    for one in left.edges[place[0]]:
        for other in right.edges[place[1]]:
            letters = one.letters & other.letters
            if letters:
                compared = place[2].read(letters, one.is_id, other.is_id)
                yield (one.to, other.to, compared), (letters, one.is_id, other.is_id)


def _way(came: dict[_Place, tuple[_Place, _Read] | None], place: _Place) -> list[_Read]:
    way: list[_Read] = []
    step = came[place]
    while step is not None:
        place, read = step
        way.append(read)
        step = came[place]
    return way[::-1]


def _of_two_ids(way: list[_Read], key: Callable[[str], str]) -> str:
    """An example. When the plainest letters happen to make one id of the two, another letter makes the difference."""
    plain = _plain(way)
    others = (
        plain[:n] + letter + plain[n + 1 :]
        for n, (letters, *_) in enumerate(way)
        for letter in sorted(letters, key=_plainness)
    )
    return next(topic for topic in (plain, *others) if len(set(map(key, _ids(topic, way)))) == 2)


def _plain(way: list[_Read]) -> str:
    return "".join(min(letters, key=_plainness) for letters, *_ in way)


def _plainness(letter: str) -> tuple[bool, str]:
    return not letter.islower(), letter


def _ids(topic: str, way: list[_Read]) -> tuple[str, str]:
    left, right = ("".join(c for c, read in zip(topic, way, strict=True) if read[side]) for side in (1, 2))
    return left, right
