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
from jitgrad.core.primitive import OPS, Kind
from jitgrad.core.record import tensor
from jitgrad.execute.cpu import blas, layout, library, llvm, pieces
from jitgrad.execute.cpu import threads as team
from jitgrad.execute.cpu.native.raw import atomic_add, atomic_load, atomic_replace, atomic_swap, call_posix, load, store
from jitgrad.execute.cpu.native.translate import Module
from jitgrad.execute.cpu.types import NATIVE, peek
from table import ENTRIES, call, cases, drawn, form_of, ident
from tolerance import assert_same_bits

call_3 = call_posix[3]
word = ctypes.c_int64
parallel = ctypes.CFUNCTYPE(word, word, word, word)(NATIVE["parallel"])

needs_team = pytest.mark.skipif(team._c is None, reason="no POSIX threads here")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


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


@pytest.fixture(autouse=True)
def threads_as_before():
    before = jg.get_num_threads()
    yield
    jg.set_num_threads(before)


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


# ---- large operations -----------------------------------------------------------------------------

def by_threads(made, arrays):
    """The result of a form by 1, 2 and 3 threads, over different garbage; and whether it is in pieces."""
    address, words = library.kernel_of(made)
    results = []
    for threads in (1, 2, 3):
        jg.set_num_threads(threads)
        results.append(np.full(made.outs[0].shape, 5 + threads).astype(made.outs[0].dtype))
        call(address, words, results[-1], *arrays)
    return results, address == NATIVE["divide"]


SHAPES = {"line": lambda k: [(70_001,)] * k,
          "rows": lambda k: [(67, 1999), (1999,), (67, 1)][:k],
          "few long rows": lambda k: [(3, 50_001), (1, 50_001), (3, 1)][:k],
          "inner rows": lambda k: [(40, 3, 700), (40, 1, 700), (3, 1)][:k]}


@pytest.mark.parametrize("prim, dtype", cases(ENTRIES, (Kind.ELEMENTWISE,)), ids=ident)
def test_elementwise_bits_are_the_same_for_any_number(prim, dtype, rng):
    """A piece is what the whole would have made there: compared with the kernel itself too, on one row and on all."""
    for kind, shapes in SHAPES.items():
        if kind != "line" and len(prim.domains) == 1:
            continue
        arrays, params = drawn(prim, dtype, rng, shapes(len(prim.domains)))
        made = form_of(prim, arrays, params)
        results, divided = by_threads(made, arrays)
        assert divided
        whole = np.zeros_like(results[0])
        inner = library._elementwise_kernel(prim, tuple(a.dtype for a in made.avals), tuple(params.items()))
        full = [np.ascontiguousarray(np.broadcast_to(a, whole.shape)) for a in arrays]
        call(inner, [whole.size] + [1] * len(arrays), whole, *full)
        for result in results:
            assert_same_bits(result, whole)


@pytest.mark.parametrize("prim, dtype", cases(ENTRIES, (Kind.REDUCE, Kind.SCAN)), ids=ident)
def test_sums_of_rows_have_the_same_bits_for_any_number(prim, dtype, rng):
    for shape, axis, there in (((1999, 67), 1, True), ((5, 40_001), 1, True), ((301, 9, 40), 1, True),
                               ((4, 9, 40), 1, False), ((70_000,), 0, False)):
        arrays, _ = drawn(prim, dtype, rng, [shape] * len(prim.domains))
        params = {"axes": (axis,)} if prim.kind is Kind.REDUCE else {"axis": axis, "exclusive": True, "reverse": True}
        results, divided = by_threads(form_of(prim, arrays, params), arrays)
        assert divided == there
        rows = results[0]
        if len(shape) > 1 and prim.kind is Kind.REDUCE:
            rows = np.stack([OPS[prim.name](*(tensor(a[i]) for a in arrays), axes=(axis - 1,)).numpy()
                             for i in range(shape[0])])
        for result in results:
            assert_same_bits(result, rows)


def threads_of_blas():
    return blas.described()[2]


PRODUCTS = ((1, 300, 500, 40), (1, 64, 2000, 64), (3, 200, 130, 170), (70, 40, 41, 42), (1, 3000, 10, 300),
            (1, 100, 127, 400), (1, 129, 128, 300), (1, 700, 700, 700), (2, 90, 40, 60))


@pytest.mark.skipif(not blas.functions(), reason="no BLAS here")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", PRODUCTS, ids=str)
def test_products_by_any_number(sizes, dtype, rng):
    """One thread gives the bits of two; BLAS has the threads that it had."""
    batch, m, n, k = sizes
    before = threads_of_blas()
    for ta, tb in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = rng.normal(size=(batch, m, k)).astype(dtype), rng.normal(size=(batch, k, n)).astype(dtype)
        want = x.astype(np.float64) @ y.astype(np.float64)
        given = [np.ascontiguousarray(a.swapaxes(1, 2) if turned else a) for a, turned in ((x, ta), (y, tb))]
        words = [blas.functions()["s" if dtype == "float32" else "d"], x.itemsize, batch, m, n, k, ta, tb]
        results = []
        for threads in (1, 2, 3, 9):
            jg.set_num_threads(threads)
            results.append(np.full((batch, m, n), np.nan, dtype))
            call(NATIVE["gemm"], words, results[-1], *given)
            np.testing.assert_allclose(results[-1], want, rtol=0, atol=np.finfo(dtype).eps * 8 * k)
        assert_same_bits(results[0], results[1])
    assert threads_of_blas() == before


@pytest.mark.skipif(not blas.functions(), reason="no BLAS here")
def test_products_in_many_python_threads(rng):
    """Of several sizes at once: BLAS gets its threads back when the last has gone."""
    before, wrong = threads_of_blas(), []
    pairs = [(rng.normal(size=(n, n)), rng.normal(size=(n, n))) for n in (70, 130, 200, 260)]
    jg.set_num_threads(2)
    want = [(jg.asarray(x) @ jg.asarray(y)).numpy() for x, y in pairs]

    def caller(k):
        for i in range(20):
            x, y = pairs[(i + k) % 4]
            if ((jg.asarray(x) @ jg.asarray(y)).numpy() != want[(i + k) % 4]).any():
                wrong.append(i)
    callers = [threading.Thread(target=caller, args=(k,)) for k in range(8)]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    assert not wrong
    assert threads_of_blas() == before


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_of_a_product_has_the_threads_of_blas_back():
    """A fork while a product runs, in whose process nobody ends it."""
    if not peek(team._team + layout.TEAM_BLAS_SET):
        pytest.skip("no OpenBLAS here")
    users, before = (ctypes.c_int64.from_address(team._team + at)
                     for at in (layout.TEAM_BLAS_USERS, layout.TEAM_BLAS_BEFORE))
    set_ = ctypes.CFUNCTYPE(None, ctypes.c_int)(peek(team._team + layout.TEAM_BLAS_SET))
    had = threads_of_blas()
    try:
        users.value, before.value = 1, 2
        set_(1)
        assert in_child(lambda: bytes([threads_of_blas(), users.value])) == bytes([2, 0])
    finally:
        users.value = 0
        set_(had)


def test_large_operations_in_many_python_threads():
    """Tensors and gradients by eight threads at once, while another changes the number and one lets go of them."""
    x = jg.asarray(np.linspace(-3, 3, 200_000).reshape(400, 500))

    def answer():
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = jg.sum(jg.exp(-x * x) * jg.tanh(x + x[0]), axis=1)
        return y.numpy().tobytes(), tape.gradient(y, x).numpy().tobytes()
    jg.set_num_threads(1)
    want, wrong, stop = answer(), [], threading.Event()

    def changer():
        while not stop.is_set():
            for n in (1, 3, 2):
                jg.set_num_threads(n)
    callers = [threading.Thread(target=lambda: wrong.extend(1 for _ in range(5) if answer() != want)) for _ in range(8)]
    other = threading.Thread(target=changer)
    for t in (*callers, other):
        t.start()
    for t in callers:
        t.join()
    stop.set()
    other.join()
    assert not wrong


# ---- forks and ends -------------------------------------------------------------------------------

def in_child(work):
    """What ``work`` answers in a forked child, as bytes."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(write, work())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return said


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
