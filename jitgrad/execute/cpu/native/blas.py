"""Matrix products by BLAS, large ones in blocks of rows and columns that the team shares.

BLAS runs each on the thread that calls it, so that its own threads never meet ours: its number of threads is 1 while
any product of ours runs that it would share, and set back by the last. Blocks are as many as there are threads, and
two for one thread, so that one gives the same bits as two: BLAS rounds differently at the edges of a block. A block
costs BLAS work that it does once for a whole product, 4 to 10 percent for the second block.
"""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import call_posix, call_task, dgemm, load, sgemm, stack, state, store, zero
from jitgrad.execute.cpu.native.threads import locked, shared, unlocked

call_0, call_1 = call_posix[:2]
frame_context, frame_block = stack(7), stack(5)
ROW_MAJOR, NO_TRANSPOSE, TRANSPOSE = 101, 111, 112
SHARED = 1 << 18               # multiply-adds from which on BLAS would use its threads,
DIVIDED = 1 << 22              # from which on we use ours: 60 us of float32,
LARGE = 1 << 24                # wake those that sleep at once,
HUGE = 1 << 28                 # and have more blocks than threads, so that all end at the same time
GRAIN = 1 << 21                # of small products, how many are a task
MOST, NARROW = 64, 64          # blocks of one product; rows and columns that a block has at least
ADDED, FOLLOWED = 1, 2         # bits of a word: added to what is there; something follows each block


def gemm(params, slots):
    """params: cblas function, width, batch, m, n, k, transpose x, transpose y, what else; operands dense.

    What follows a block is done by the thread that has just made it: slots 3 and 4 are an ``i64 task(i64 words, i64)``
    and a context; it finds this, the first row, the last, the first column, the last in its words. Only for one product
    that is not empty.
    """
    width, batch = load(params + 8), load(params + 16)
    m, n, k = load(params + 24), load(params + 32), load(params + 40)
    if m == 0 or n == 0 or k == 0:
        if load(params + 64) & ADDED:
            return 0
        zero(load(slots), 0, batch * m * n * width)
        return 0
    team = load(state() + lay.S_TEAM)
    controlled = load(team + lay.TEAM_BLAS_SET) != 0
    if controlled and batch * m * n * k >= DIVIDED:
        limit(team)
        divided(team, params, slots)
        unlimit(team)
    elif controlled and m * n * k >= SHARED:
        limit(team)
        some(params, slots, 0, batch, 0, m, 0, n)
        unlimit(team)
        follow(params, slots, 0, m, 0, n)
    else:
        some(params, slots, 0, batch, 0, m, 0, n)
        follow(params, slots, 0, m, 0, n)
    return 0


def some(params, slots, first, last, row, rows, column, columns):
    """Some rows and columns of a range of the products."""
    function, width = load(params), load(params + 8)
    m, n, k = load(params + 24), load(params + 32), load(params + 40)
    ta, tb = load(params + 48), load(params + 56)
    out = load(slots) + (first * m * n + row * n + column) * width
    x = load(slots + 8) + (first * m * k + (row if ta else row * k)) * width
    y = load(slots + 16) + (first * k * n + (column * k if tb else column)) * width
    lda = m if ta else k
    ldb = k if tb else n
    ta = TRANSPOSE if ta else NO_TRANSPOSE
    tb = TRANSPOSE if tb else NO_TRANSPOSE
    beta = 1.0 if load(params + 64) & ADDED else 0.0
    for _ in range(first, last):
        if width == 4:
            sgemm(function, ROW_MAJOR, ta, tb, rows, columns, k, 1.0, x, lda, y, ldb, beta, out, n)
        else:
            dgemm(function, ROW_MAJOR, ta, tb, rows, columns, k, 1.0, x, lda, y, ldb, beta, out, n)
        x += m * k * width
        y += k * n * width
        out += m * n * width


def divided(team, params, slots):
    """A grid of blocks of each product; of small ones in a large batch, several whole ones in a task."""
    batch, m, n, k = load(params + 16), load(params + 24), load(params + 32), load(params + 40)
    work = m * n * k
    wanted = 4 if work >= HUGE else 2
    while wanted < min(load(team + lay.TEAM_LIMIT), MOST):
        wanted *= 2
    height, width = m, n
    while batch * pieces(m, height) * pieces(n, width) < wanted and max(height, width) >= 2 * NARROW:
        if width >= height:
            width = half(width, 16)
        else:
            height = half(height, 8)
    down, across = pieces(m, height), pieces(n, width)
    several = max(1, GRAIN // work)
    context = frame_context()
    store(context, params)
    store(context + 8, slots)
    store(context + 16, several)
    store(context + 24, down)
    store(context + 32, across)
    store(context + 40, height)
    store(context + 48, width)
    count = pieces(batch, several) * down * across
    shared(load(team + lay.TEAM_BLOCK), context, count, batch * work >= LARGE)


def pieces(extent, size):
    return (extent + size - 1) // size


def half(extent, tile):
    """In whole tiles of BLAS, whose rows are vectors."""
    return (extent // 2 + tile - 1) & -tile


def block(context, index):
    params, slots, several = load(context), load(context + 8), load(context + 16)
    down, across, height, width = load(context + 24), load(context + 32), load(context + 40), load(context + 48)
    batch, m, n = load(params + 16), load(params + 24), load(params + 32)
    each = down * across
    first = index // each * several
    row, column = index % each // across * height, index % across * width
    rows, columns = min(height, m - row), min(width, n - column)
    some(params, slots, first, min(first + several, batch), row, rows, column, columns)
    follow(params, slots, row, rows, column, columns)
    return 0


def follow(params, slots, row, rows, column, columns):
    if load(params + 64) & FOLLOWED:
        words = frame_block()
        store(words, load(slots + 32))
        store(words + 8, row)
        store(words + 16, row + rows)
        store(words + 24, column)
        store(words + 32, column + columns)
        call_task(load(slots + 24), words, 0)


def limit(team):
    """One thread for BLAS, until the last that wants it so has gone. The words tell at any moment what to set back."""
    locked(team)
    users = load(team + lay.TEAM_BLAS_USERS)
    if users == 0:
        store(team + lay.TEAM_BLAS_BEFORE, call_0(load(team + lay.TEAM_BLAS_GET)))
    store(team + lay.TEAM_BLAS_USERS, users + 1)
    if users == 0 and load(team + lay.TEAM_BLAS_BEFORE) != 1:
        call_1(load(team + lay.TEAM_BLAS_SET), 1)
    unlocked(team)


def unlimit(team):
    """What somebody else has set meanwhile stays."""
    locked(team)
    users, before = load(team + lay.TEAM_BLAS_USERS) - 1, load(team + lay.TEAM_BLAS_BEFORE)
    if users == 0 and before != 1 and call_0(load(team + lay.TEAM_BLAS_GET)) == 1:
        call_1(load(team + lay.TEAM_BLAS_SET), before)
    store(team + lay.TEAM_BLAS_USERS, users)
    unlocked(team)
