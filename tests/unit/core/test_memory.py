"""Pools of free memory and what the collector looks at, in processes of their own: they are a
process's for good.
"""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from services.core.memory import giving_back

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own")
COUNT = """
import ctypes, sys, threading
from services.core.memory import share_arena

if "share" in sys.argv:
    share_arena()
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
all_there = threading.Barrier(8)

def allocate():
    all_there.wait()
    libc.malloc(1000)
    all_there.wait()

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
told = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(told))
libc.fclose(ctypes.c_void_p(told))
"""


def arenas(told: Path, *arguments: str, **environment: str) -> int:
    command = [sys.executable, "-c", COUNT, str(told), *arguments]
    clean = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    subprocess.run(command, check=True, env={**clean, **environment})
    return told.read_text().count("<heap nr=")


@GLIBC
def test_threads_share_one_pool(tmp_path: Path) -> None:
    assert arenas(tmp_path / "left") > 1
    assert arenas(tmp_path / "shared", "share") == 1


@GLIBC
def test_what_the_environment_says_goes_first(tmp_path: Path) -> None:
    assert 1 < arenas(tmp_path / "said", "share", MALLOC_ARENA_MAX="5") <= 5
    tunables = "glibc.malloc.arena_max=4"
    assert 1 < arenas(tmp_path / "tuned", "share", GLIBC_TUNABLES=tunables) <= 4


async def test_memory_is_given_back_until_it_is_over() -> None:
    loop, given, again = asyncio.get_running_loop(), [0], asyncio.Event()

    def give() -> None:
        given[0] += 1
        if given[0] == 3:
            loop.call_soon_threadsafe(again.set)

    before = asyncio.all_tasks()
    async with giving_back(every_seconds=0.0, give=give):
        await again.wait()
    await asyncio.gather(*(asyncio.all_tasks() - before), return_exceptions=True)
    assert given[0] >= 3
    assert asyncio.all_tasks() == before


RESIDENT = """
import sys
from services.core.memory import give_back, share_arena

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

share_arena()
pieces = [bytes(60000) for _ in range(2000)]
kept = pieces[::2]
full = resident()
del pieces
give_back()
print(full - resident())
"""


@GLIBC
def test_what_lies_free_between_pieces_is_given_back() -> None:
    told = subprocess.run(
        [sys.executable, "-c", RESIDENT], check=True, capture_output=True, text=True
    )
    assert int(told.stdout) > 30 * 2**20


SETTLED = """
import gc, weakref
from services.core.memory import give_back, settle, settle_again

class Large:
    def __init__(self):
        self.itself = self

def watched():
    return weakref.ref(Large())

settle_again()
assert gc.get_freeze_count() == 0, "nothing was settled yet"
garbage, model = watched(), Large()
settle()
assert garbage() is None, "garbage of the start is not kept"
assert gc.get_freeze_count() > 1000
gone, later = weakref.ref(model), watched()
del model
give_back()
assert gone() is not None, "what is settled is left alone"
assert later() is None, "the cycles that came later are freed"
settle_again()
assert gone() is None
assert gc.get_freeze_count() > 1000
"""


def test_the_collector_leaves_alone_what_is_settled_until_it_is_settled_again() -> None:
    subprocess.run([sys.executable, "-c", SETTLED], check=True)
