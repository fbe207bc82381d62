"""A team of threads: the caller and sleeping workers run a task at every index, whoever comes next.

It holds no Python object and takes no GIL, so kernels use it with and without; tasks touch nothing of Python either.
The C library's threads, reached through addresses in the team's block; where it has none the caller works alone. So it
does while another has the team, which a task that asks for it always finds.

Machine code calls it as ``i64 @parallel(i64 task, i64 context, i64 count)``, an import bound to NATIVE["parallel"]
(types.py), with the address of its own ``i64 task(i64 context, i64 index)`` as ``ptrtoint (ptr @task to i64)``:

- context points to whatever tasks read, the caller's stack included: when `parallel` returns, no task runs, and all
  that tasks wrote is seen.
- The caller calls it at any number of threads, one included: tasks are then run by the caller, in order. So results
  have the same bits for any number if extents are cut by their size alone (pieces.task_of says into what, and which
  are too small to be cut), if no two tasks write the same element, and if sums of several tasks go to places of their
  own that the caller adds in the order of indices.
- A status other than 0 is returned (any of them, if several tasks fail), and tasks that nobody began are left out.
- A task may call BLAS; `parallel` inside a task runs on that thread alone. A worker has the C library's usual stack
  (8 MB here, 128 KB in musl), so a task keeps large scratch elsewhere: one for each index, not one for the caller.

A job is open while TEAM_INSIDE is below TEAM_CLOSED: workers come and go by counting themselves there, and the caller
closes it and waits until nobody is inside. A sleeper and who wakes it both write first and look then, so that one of
them sees the other.
"""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import (
    atomic_add,
    atomic_load,
    atomic_replace,
    atomic_swap,
    call_posix,
    call_task,
    load,
    pause,
    stack,
    state,
    store,
)

call_0, call_1, call_2, call_3, call_4 = call_posix
frame_words, frame_time = stack(17), stack(2)
PAUSES = 16                    # between two looks at the clock: half a microsecond
ALERT = 20000                  # nanoseconds for which a worker keeps the processor after work


def parallel(task, context, count):
    """``i64 task(i64 context, i64 index)`` for each index below ``count``: 0, or the status of one that failed.

    Which thread runs which index is chance, so what a task does may depend on the index only. When one fails, indices
    that nobody began are left out. Workers that sleep are woken where the first index took so long that the others are
    worth it, with those of the jobs just before; so an index had better be of some 10 us.
    """
    return shared(task, context, count, False)


def shared(task, context, count, large):
    """`parallel`; of work that is known to be large, sleepers are woken at once."""
    team = load(state() + lay.S_TEAM)
    hands = min(load(team + lay.TEAM_LIMIT), count) - 1
    if hands < 1 or load(team + lay.TEAM_BUSY) != 0 or not atomic_replace(team + lay.TEAM_BUSY, 0, 1):
        return alone(task, context, count)
    hands = min(hands, hired(team, hands))
    if hands < 1:
        atomic_swap(team + lay.TEAM_BUSY, 0)
        return alone(task, context, count)
    store(team + lay.TEAM_TASK, task)
    store(team + lay.TEAM_CONTEXT, context)
    store(team + lay.TEAM_COUNT, count)
    store(team + lay.TEAM_STATUS, 0)
    store(team + lay.TEAM_HANDS, hands)
    atomic_swap(team + lay.TEAM_NEXT, 0)
    atomic_add(team + lay.TEAM_INSIDE, -lay.TEAM_CLOSED)
    asleep = sleepers(team, hands)
    if asleep > 0:
        begun = now(team)
        if large or stepped(team) and missed(team, begun) > load(team + lay.TEAM_WORTH):
            wake(team, asleep)
            store(team + lay.TEAM_MISSED, 0)
    while stepped(team):
        pass
    atomic_add(team + lay.TEAM_INSIDE, lay.TEAM_CLOSED)
    if atomic_load(team + lay.TEAM_INSIDE) != lay.TEAM_CLOSED:
        finish(team)
    if asleep > 0:
        store(team + lay.TEAM_LAST, now(team))
    status = atomic_load(team + lay.TEAM_STATUS)
    atomic_swap(team + lay.TEAM_BUSY, 0)
    return status


def alone(task, context, count):
    for i in range(count):
        status = call_task(task, context, i)
        if status != 0:
            return status
    return 0


def stepped(team):
    """Run the next index of the job; False if none is left."""
    i, count = atomic_add(team + lay.TEAM_NEXT, 1), load(team + lay.TEAM_COUNT)
    if i >= count:
        return False
    status = call_task(load(team + lay.TEAM_TASK), load(team + lay.TEAM_CONTEXT), i)
    if status != 0:
        atomic_swap(team + lay.TEAM_STATUS, status)
        atomic_swap(team + lay.TEAM_NEXT, count)
    return True


def left(team):
    """Indices that nobody has begun."""
    return load(team + lay.TEAM_COUNT) - atomic_load(team + lay.TEAM_NEXT)


def missed(team, begun):
    """Nanoseconds of work that one thread has done or will do alone: in this job, and in those before it that followed
    each other so closely that a worker would have stayed awake."""
    before = load(team + lay.TEAM_MISSED) if begun - load(team + lay.TEAM_LAST) < load(team + lay.TEAM_SPIN) else 0
    total = before + (now(team) - begun) * left(team)
    store(team + lay.TEAM_MISSED, total)
    return total


def hired(team, wanted):
    """How many workers there are, after an attempt to have as many as wanted. They handle no signals: Python's main
    thread does, and what it waits in is to be interrupted."""
    wanted = min(wanted, load(team + lay.TEAM_MOST))
    made = load(team + lay.TEAM_MADE)
    if made >= wanted:
        return made
    words = frame_words()
    how, masks = load(team + lay.TEAM_SETMASK), load(team + lay.TEAM_SIGMASK)
    call_3(masks, how, team + lay.TEAM_MASK, words)
    while made < wanted:
        if call_4(load(team + lay.TEAM_CREATE), words + 128, 0, load(team + lay.TEAM_WORKER), team) != 0:
            store(team + lay.TEAM_MOST, made)
            break
        call_1(load(team + lay.TEAM_DETACH), load(words + 128))
        made += 1
        store(team + lay.TEAM_MADE, made)
    call_3(masks, how, words, 0)
    return made


def sleepers(team, hands):
    """How many workers would have to be woken for so many hands."""
    asleep = atomic_load(team + lay.TEAM_SLEEPING)
    return min(asleep, hands - (load(team + lay.TEAM_MADE) - asleep))


def wake(team, count):
    locked(team)
    for _ in range(count):
        call_1(load(team + lay.TEAM_SIGNAL), team + lay.TEAM_WAKE)
    unlocked(team)


def patient(team, begun):
    """Whether the time to look around is not over yet. When some of it is, others may have the processor, the caller
    perhaps; but not at once, for where other processes want it they keep it for milliseconds."""
    waited = now(team) - begun
    if waited > ALERT:
        call_0(load(team + lay.TEAM_YIELD))
    return waited < load(team + lay.TEAM_SPIN)


def locked(team):
    call_1(load(team + lay.TEAM_LOCK), team + lay.TEAM_MUTEX)


def unlocked(team):
    call_1(load(team + lay.TEAM_UNLOCK), team + lay.TEAM_MUTEX)


def now(team):
    """Nanoseconds of a clock that never goes back."""
    time = frame_time()
    call_2(load(team + lay.TEAM_TIME), load(team + lay.TEAM_CLOCK), time)
    return load(time) * 1000000000 + load(time + 8)


def finish(team):
    """Wait until the last worker has left the closed job."""
    begun = now(team)
    while True:
        for _ in range(PAUSES):
            if atomic_load(team + lay.TEAM_INSIDE) == lay.TEAM_CLOSED:
                return
            pause()
        if not patient(team, begun):
            break
    locked(team)
    atomic_swap(team + lay.TEAM_WAITING, 1)
    while atomic_load(team + lay.TEAM_INSIDE) != lay.TEAM_CLOSED:
        call_2(load(team + lay.TEAM_WAIT), team + lay.TEAM_DONE, team + lay.TEAM_MUTEX)
    atomic_swap(team + lay.TEAM_WAITING, 0)
    unlocked(team)


def is_open(team):
    """Whether a job has indices left and room for one more worker."""
    inside = atomic_load(team + lay.TEAM_INSIDE)
    return inside < load(team + lay.TEAM_HANDS) and atomic_load(team + lay.TEAM_NEXT) < load(team + lay.TEAM_COUNT)


def joined(team):
    """Step inside if the job is open. Only when inside is what the job's words say certain."""
    while is_open(team):
        inside = atomic_load(team + lay.TEAM_INSIDE)
        if inside < lay.TEAM_CLOSED and atomic_replace(team + lay.TEAM_INSIDE, inside, inside + 1):
            return True
    return False


def worker(team):
    """The life of a worker: look for work for a while, then sleep."""
    while True:
        begun = now(team)
        while True:
            for _ in range(PAUSES):
                if joined(team):
                    work(team)
                    begun = now(team)
                pause()
            if not patient(team, begun):
                break
        sleep(team)


def work(team):
    while stepped(team):
        pass
    inside = atomic_add(team + lay.TEAM_INSIDE, -1) - 1
    if inside == lay.TEAM_CLOSED and atomic_load(team + lay.TEAM_WAITING) != 0:
        locked(team)
        call_1(load(team + lay.TEAM_SIGNAL), team + lay.TEAM_DONE)
        unlocked(team)


def sleep(team):
    """Wait for a signal. Who was woken too late looks for the next job for a while, and does not sleep at once."""
    locked(team)
    atomic_add(team + lay.TEAM_SLEEPING, 1)
    if not is_open(team):
        call_2(load(team + lay.TEAM_WAIT), team + lay.TEAM_WAKE, team + lay.TEAM_MUTEX)
    atomic_add(team + lay.TEAM_SLEEPING, -1)
    unlocked(team)
