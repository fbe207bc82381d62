"""Threads that share work: every index once, the same bits for any number, forks, exits, several callers at once."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import jitgrad as jg
from children import in_child, needs_fork
from jitgrad.execute.cpu import layout, llvm, pieces
from jitgrad.execute.cpu import threads as team
from jitgrad.execute.cpu.native.raw import atomic_add, atomic_load, atomic_replace, atomic_swap, call_posix, load, store
from jitgrad.execute.cpu.native.translate import Module
from jitgrad.execute.cpu.types import NATIVE, peek

call_3 = call_posix[3]
word = ctypes.c_int64
parallel = ctypes.CFUNCTYPE(word, word, word, word)(NATIVE["parallel"])

needs_team = pytest.mark.skipif(team._c is None, reason="no POSIX threads here")
pytestmark = pytest.mark.usefixtures("threads_as_before")


def mark(context, i):
    """Word i of the context counts the calls; some work, so that several threads come to it."""
    n = 0
    for k in range(2000):
        n += k ^ i
    atomic_add(context + 8 * i, 1)
    return n & 0


def fail_at_seven(context, i):
    atomic_add(context, 1)
    return 70 if i == 7 else 0


def nested(context, i):
    """context: address of `parallel`, of `mark`, then 8 words an index."""
    return call_3(load(context), load(context + 8), context + 16 + 64 * i, 8)


def slow(context, i):
    """Until the word at the context is set, or a long time has gone."""
    n = 0
    while atomic_load(context) == 0 and n < 2000000000:
        n += 1
    return 0


def cells(a, b):
    """What each operation leaves and says."""
    store(a, b)
    total = atomic_add(a, 5)
    total = 10 * total + atomic_swap(a, 3)
    total = 10 * total + atomic_replace(a, 4, 9)
    total = 10 * total + atomic_replace(a, 3, 8)
    return 10 * total + atomic_load(a)


def linked(*functions):
    module = Module()
    for f in functions:
        module.export(f.__name__, f)
    return llvm.link(llvm.emit(module.text(), optimise="branches"), [f.__name__ for f in functions])


def refuse(a, b, c, d):
    """A system that makes no thread."""
    return 11


TASKS = linked(mark, fail_at_seven, nested, slow, cells, refuse)


def counts(n, extra=0):
    return np.zeros(n + extra, np.int64)


def test_atomic_words():
    from jitgrad.execute.cpu.native import by_numba
    by_both = [TASKS["cells"], llvm.link(llvm.emit(by_numba.exported("cells", cells)), ["cells"])["cells"]]
    for address in by_both:
        cell = counts(1)
        said = ctypes.CFUNCTYPE(word, word, word)(address)(cell.ctypes.data, 2)
        assert (said, cell[0]) == (27018, 8)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_every_index_once(threads):
    jg.set_num_threads(threads)
    for n in (0, 1, 2, 3, 64, 1000):
        for _ in range(20):
            seen = counts(n, 1)
            assert parallel(TASKS["mark"], seen.ctypes.data, n) == 0
            assert (seen[:n] == 1).all() and seen[n] == 0
    if team._c is not None:
        assert peek(team._team + layout.TEAM_MADE) >= threads - 1


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_failure_is_told_and_ends_the_job(threads):
    jg.set_num_threads(threads)
    for _ in range(200):
        seen = counts(1)
        assert parallel(TASKS["fail_at_seven"], seen.ctypes.data, 100_000) == 70
        assert seen[0] == 8 or threads > 1
        assert parallel(TASKS["mark"], counts(16).ctypes.data, 16) == 0      # and is forgotten


def test_a_task_that_shares_work_does_it_alone():
    jg.set_num_threads(3)
    for _ in range(50):
        block = counts(2 + 8 * 40)
        block[:2] = NATIVE["parallel"], TASKS["mark"]
        assert parallel(TASKS["nested"], block.ctypes.data, 40) == 0
        assert (block[2:] == 1).all()


@pytest.mark.parametrize("spin", [0, 1_000_000])
def test_workers_that_sleep_and_that_look(spin):
    """With no patience at all every wait goes through the system; with much, none does."""
    jg.set_num_threads(3)
    at = ctypes.c_int64.from_address(team._team + layout.TEAM_SPIN)
    worth = ctypes.c_int64.from_address(team._team + layout.TEAM_WORTH)
    before, at.value, worth.value = (at.value, worth.value), spin, 0
    try:
        for _ in range(2000):
            seen = counts(9)
            assert parallel(TASKS["mark"], seen.ctypes.data, 9) == 0
            assert (seen == 1).all()
    finally:
        at.value, worth.value = before


@needs_team
def test_sleepers_are_woken_for_many_small_jobs():
    """What they miss adds up, if the jobs come one after the other."""
    jg.set_num_threads(2)
    words = {at: ctypes.c_int64.from_address(team._team + at) for at in (layout.TEAM_SPIN, layout.TEAM_WORTH)}
    before = {at: word.value for at, word in words.items()}
    spin, worth = words.values()
    missed = ctypes.c_int64.from_address(team._team + layout.TEAM_MISSED)

    def woken(jobs):
        for _ in range(jobs):
            assert parallel(TASKS["mark"], counts(4).ctypes.data, 4) == 0
            if peek(team._team + layout.TEAM_SLEEPING) < peek(team._team + layout.TEAM_MADE):
                return True
        return False
    try:
        parallel(TASKS["mark"], counts(4).ctypes.data, 4)
        spin.value, worth.value = 0, 10**12
        while peek(team._team + layout.TEAM_SLEEPING) < peek(team._team + layout.TEAM_MADE):
            pass
        assert not woken(500)
        for spin.value, kept in ((0, False), (10**12, True)):
            missed.value = 10**11
            assert not woken(1)
            assert (missed.value >= 10**11) == kept
        worth.value, missed.value = 300_000, 0
        assert woken(100_000)
    finally:
        for at, word in words.items():
            word.value = before[at]


def test_eight_callers_at_once():
    """One has the team, the others work alone; changes of the number meanwhile change nothing else."""
    wrong, stop = [], threading.Event()

    def caller():
        for _ in range(300):
            seen = counts(50)
            if parallel(TASKS["mark"], seen.ctypes.data, 50) != 0 or not (seen == 1).all():
                wrong.append(seen)

    def changer():
        while not stop.is_set():
            for n in (1, 4, 2):
                jg.set_num_threads(n)
    callers = [threading.Thread(target=caller) for _ in range(8)]
    other = threading.Thread(target=changer)
    for t in (*callers, other):
        t.start()
    for t in callers:
        t.join()
    stop.set()
    other.join()
    assert not wrong


@needs_team
def test_a_system_that_makes_no_threads():
    made = peek(team._team + layout.TEAM_MADE)
    create = ctypes.c_int64.from_address(team._team + layout.TEAM_CREATE)
    before, create.value = create.value, TASKS["refuse"]
    try:
        jg.set_num_threads(made + 5)
        for _ in range(3):
            assert marked() == bytes([50] * 64)
    finally:
        create.value = before
    assert peek(team._team + layout.TEAM_MADE) == made
    jg.set_num_threads(made + 2)
    assert marked() == bytes([50] * 64)
    assert peek(team._team + layout.TEAM_MADE) == made + 1


# ---- how many -------------------------------------------------------------------------------------

@needs_team
def test_the_number_is_kept():
    for n in (1, np.int64(3), 2):
        jg.set_num_threads(n)
        assert jg.get_num_threads() == n


@pytest.mark.parametrize("wrong, kind", [(0, ValueError), (-2, ValueError), (5000, ValueError), (1 << 80, ValueError),
                                         (1.0, TypeError), ("2", TypeError), (None, TypeError), (True, TypeError)])
def test_a_wrong_number_is_refused(wrong, kind):
    before = jg.get_num_threads()
    with pytest.raises(kind, match=r"set_num_threads: n must be .*test_threads\.py"):
        jg.set_num_threads(wrong)
    assert jg.get_num_threads() == before


def started(code, **environment):
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=env)


NUMBER = "import jitgrad as jg; print(jg.get_num_threads())"


@needs_team
def test_the_environment_says_how_many():
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for said, number in (("", usable), (" 3 ", 3), ("1", 1)):
        done = started(NUMBER, JITGRAD_NUM_THREADS=said)
        assert (done.returncode, done.stdout) == (0, f"{number}\n"), done.stderr
    for said in ("0", "-1", "many", "1.5", "99999999999999999999"):
        done = started(NUMBER, JITGRAD_NUM_THREADS=said)
        assert done.returncode != 0
        assert f"ValueError: JITGRAD_NUM_THREADS must be a whole number from 1 to 1024; it is '{said}'" in done.stderr


# ---- machine code --------------------------------------------------------------------------------

SQUARES = """
define i64 @squares(ptr %table, ptr %arena) {
  %context = alloca [2 x ptr]
  %second = getelementptr ptr, ptr %context, i64 1
  store ptr %table, ptr %context
  store ptr %arena, ptr %second
  %at = ptrtoint ptr %context to i64
  %status = call i64 @parallel(i64 ptrtoint (ptr @task to i64), i64 %at, i64 100)
  ret i64 %status
}

define i64 @task(i64 %context, i64 %index) {
  %at = inttoptr i64 %context to ptr
  %second = getelementptr ptr, ptr %at, i64 1
  %arena = load ptr, ptr %second
  %place = getelementptr i64, ptr %arena, i64 %index
  %square = mul i64 %index, %index
  store i64 %square, ptr %place
  %late = icmp eq i64 %index, 99
  %status = select i1 %late, i64 5, i64 0
  ret i64 %status
}

declare i64 @parallel(i64, i64, i64)
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_machine_code_shares_work(threads):
    """As the documentation of native/threads.py says it is called."""
    jg.set_num_threads(threads)
    addresses, _code = llvm.load(llvm.emit(SQUARES), ["squares"], {"parallel": NATIVE["parallel"]})
    for _ in range(20):
        squares = counts(100)
        assert ctypes.CFUNCTYPE(word, word, word)(addresses["squares"])(0, squares.ctypes.data) == 5
        assert (squares == np.arange(100) ** 2).all()


@pytest.mark.parametrize("extent, nodes, nbytes, least, most",
                         [(1000, 4, 12, 0, 0), (1, 1e9, 1e9, 0, 0), (10_000_000, 10, 12, 5000, 50_000),
                          (128, 2e6, 1e5, 1, 1), (0, 5, 5, 0, 0), (5000, 500, 800, 100, 1000)])
def test_tasks_are_of_ten_microseconds(extent, nodes, nbytes, least, most):
    assert least <= pieces.task_of(extent, nodes, nbytes) <= most


# ---- forks and ends -------------------------------------------------------------------------------

def marked():
    seen = counts(64)
    for _ in range(50):
        assert parallel(TASKS["mark"], seen.ctypes.data, 64) == 0
    return bytes(seen.astype(np.uint8))


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_has_a_team_of_its_own():
    jg.set_num_threads(3)
    marked()
    assert in_child(marked) == marked() == bytes([50] * 64)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_while_another_thread_has_the_team():
    jg.set_num_threads(3)
    for _ in range(5):
        go = counts(1)
        thread = threading.Thread(target=parallel, args=(TASKS["slow"], go.ctypes.data, 8))
        thread.start()
        while thread.is_alive() and not peek(team._team + layout.TEAM_BUSY):
            pass
        assert in_child(marked) == bytes([50] * 64)
        go[0] = 1
        thread.join()
    assert marked() == bytes([50] * 64)


LAST = """
import ctypes, sys, threading, time
sys.path.insert(0, {folder!r})
import jitgrad as jg, test_threads as t
jg.set_num_threads(3)
t.marked()
end = {end!r}
if end == "asleep":
    time.sleep(0.05)
elif end == "running":
    go = t.counts(1)
    threading.Thread(target=t.parallel, args=(t.TASKS["slow"], go.ctypes.data, 8), daemon=True).start()
    time.sleep(0.02)
"""


@pytest.mark.parametrize("end", ["asleep", "looking", "running"])
def test_a_process_ends_whatever_its_workers_do(end):
    for _ in range(3):
        done = started(LAST.format(folder=os.path.dirname(__file__), end=end))
        assert (done.returncode, done.stderr) == (0, "")


def test_workers_handle_no_signals():
    """A signal interrupts what Python's main thread waits in."""
    code = ("import os, signal, sys, threading, time, jitgrad as jg\n"
            f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
            "import test_threads as t\n"
            "jg.set_num_threads(4); t.marked()\n"
            "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
            "begun = time.monotonic()\n"
            "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print(time.monotonic() - begun < 30)\n")
    done = started(code)
    assert done.stdout == "True\n", done.stderr
