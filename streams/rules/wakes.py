"""Who must be looked at at a time, although nothing happens to them?

A window ends, a message is due. The time stands in the person's record (`wake_at_ms`), so it
survives whatever happens to the lane; here is only the order in which they come. Nobody else is
looked at: time passing costs nothing for those who wait.
"""

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush

from streams.rules.person import Person


class Wakes:
    """The wake-ups of one lane's people. Times are of the lane's clock, UTC ms."""

    __slots__ = ("_heap",)

    def __init__(self, people: Iterable[Person] = ()) -> None:
        self._heap: list[tuple[int, bytes]] = []  # one live entry a person: `wake_entry_ms`
        for person in people:
            if person.wake_at_ms:
                person.wake_entry_ms = person.wake_at_ms
                self._heap.append((person.wake_at_ms, person.pid))
        heapify(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, person: Person, at_ms: int, look_ms: int = 0) -> None:
        """The person is due at `at_ms`, and at no other time; 0: never.

        Who is due already but has to wait for something is looked at at `look_ms`, or when the lane
        starts anew.
        """
        person.wake_at_ms = at_ms
        # A later time leaves the entry as it is: it is looked at when it comes, and put off.
        entry_ms = max(at_ms, look_ms)
        if at_ms and not 0 < person.wake_entry_ms <= entry_ms:
            person.wake_entry_ms = entry_ms
            heappush(self._heap, (entry_ms, person.pid))

    def next_ms(self) -> int | None:
        """When to look next; None while nobody waits."""
        return self._heap[0][0] if self._heap else None

    def due(self, people: Mapping[bytes, Person], now_ms: int, most: int) -> list[Person]:
        """Up to `most` people who are due by `now_ms`, earliest first. They wait no more."""
        found: list[Person] = []
        heap = self._heap
        while heap and heap[0][0] <= now_ms and len(found) < most:
            at_ms, pid = heappop(heap)
            person = people.get(pid)
            if person is None or person.wake_entry_ms != at_ms:
                continue  # gone, or due earlier since
            person.wake_entry_ms = 0
            if 0 < person.wake_at_ms <= now_ms:
                found.append(person)
            else:
                self.set(person, person.wake_at_ms)
        return found
