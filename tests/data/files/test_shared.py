"""Memory that processes share."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing import context
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semipix.data.files.cache import MemoryCache
from semipix.data.files.names import Names
from semipix.data.files.shared import SharedMemory

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows shares nothing")


class Handle:
    """An open file on its way to a process."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def detach(self) -> int:
        return os.dup(self.handle)


class Start:
    """A process that is being started, which is sent what is pickled."""

    DupFd = Handle

    def duplicate_for_child(self, handle: int) -> int:
        return handle


@pytest.fixture
def starting() -> Iterator[None]:
    context.set_spawning_popen(Start())
    yield
    context.set_spawning_popen(None)


def sent(value: Any) -> tuple[Any, int]:
    """What a process gets, and how many bytes are sent."""
    data = bytes(ForkingPickler.dumps(value))
    return ForkingPickler.loads(data), len(data)


@pytest.mark.usefixtures("starting")
def test_a_worker_gets_a_handle_of_many_names() -> None:
    names = Names(f"images/train/{number:08d}.jpg" for number in range(10_000))
    for copy, length in (sent(names), sent(names)):
        assert length < 500
        assert copy == names
        assert [copy[5000], copy[-1]] == [names[5000], names[-1]]
        names._text[0] = ord("j")
        assert copy[0] == "jmages/train/00000000.jpg"
        names._text[0] = ord("i")


@pytest.mark.usefixtures("starting")
def test_a_worker_gets_a_handle_of_the_memory_cache() -> None:
    cache = MemoryCache(10_000_000, readers=4)
    copy, length = sent(cache)
    assert length < 500
    assert copy.limit == cache.limit
    for number, (writer, reader) in enumerate(((cache, copy), (copy, cache))):
        key = bytes([number]) * 16
        writer.put(key, np.full((300, 400), 7 + number, np.uint8))
        found = reader.get(key)
        assert found is not None
        np.testing.assert_array_equal(found, np.full((300, 400), 7 + number))


def die_inside(memory: SharedMemory) -> None:
    with memory.locked():
        os.kill(os.getpid(), signal.SIGKILL)


def stay_inside(memory: SharedMemory) -> None:
    with memory.locked():
        memory.bytes[0] = 1
        time.sleep(0.2)
        memory.bytes[0] = 2


def test_processes_use_it_one_at_a_time() -> None:
    memory = SharedMemory(1)
    fork = multiprocessing.get_context("fork")
    killed = fork.Process(target=die_inside, args=(memory,))
    killed.start()
    killed.join()
    other = fork.Process(target=stay_inside, args=(memory,))
    other.start()
    while memory.bytes[0] == 0:
        time.sleep(0.01)
    with memory.locked():
        assert memory.bytes[0] == 2
    other.join()


OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")


@pytest.mark.skipif(not OVERCOMMIT.exists() or OVERCOMMIT.read_text().strip() == "1", reason="all sizes are granted")
def test_more_than_the_machine_has_is_refused() -> None:
    with pytest.raises(OSError, match="Cannot allocate memory"):
        SharedMemory(2**46)
