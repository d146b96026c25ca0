"""Do many small writes become few, each answered by the call that carried it?"""

import asyncio

import pytest

from runtime.gathering import Gathering


class Disk:
    """Keeps what it is given; fails at the call that it is told to fail at."""

    def __init__(self, fails_at: int = -1) -> None:
        self.calls: list[list[int]] = []
        self.fails_at = fails_at
        self.is_busy = False
        self.begun = asyncio.Event()

    async def write(self, pieces: list[int]) -> None:
        assert not self.is_busy
        self.is_busy = True
        self.calls.append(pieces)
        self.begun.set()
        await asyncio.sleep(0)
        self.is_busy = False
        if len(self.calls) - 1 == self.fails_at:
            raise OSError("full")


async def add_all(gathering: Gathering[int], count: int) -> list[BaseException | None]:
    added = (gathering.add(number) for number in range(count))
    return await asyncio.gather(*added, return_exceptions=True)


def test_what_comes_during_a_write_goes_together() -> None:
    async def go() -> list[list[int]]:
        disk = Disk()
        gathering = Gathering(disk.write)
        first = asyncio.create_task(gathering.add(-1))
        await disk.begun.wait()
        assert await add_all(gathering, 5) == [None] * 5
        await first
        return disk.calls

    assert asyncio.run(go()) == [[-1], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize(("count", "calls"), [(0, 0), (1, 1), (3, 1), (4, 2), (9, 3)])
def test_a_call_has_no_more_than_the_most(count: int, calls: int) -> None:
    disk = Disk()
    assert asyncio.run(add_all(Gathering(disk.write, 3), count)) == [None] * count
    assert len(disk.calls) == calls
    assert [piece for pieces in disk.calls for piece in pieces] == list(range(count))


def test_a_fault_is_told_to_those_whom_it_hit_and_the_next_go_on() -> None:
    found = asyncio.run(add_all(Gathering(Disk(fails_at=0).write, 2), 4))
    assert [type(each) for each in found] == [OSError, OSError, type(None), type(None)]


def test_who_gave_up_waiting_disturbs_nobody() -> None:
    async def go() -> list[list[int]]:
        disk = Disk()
        gathering = Gathering(disk.write)
        gone = asyncio.create_task(gathering.add(1))
        stays = asyncio.create_task(gathering.add(2))
        await asyncio.sleep(0)
        gone.cancel()
        await stays
        return disk.calls

    assert asyncio.run(go()) == [[1, 2]]
