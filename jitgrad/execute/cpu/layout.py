"""Where things lie in memory: the offsets that the compiled code and its Python half share.

Object offsets are in bytes and start with CPython's own header (reference count, type); structs of ours are
tables of 64-bit words and their constants are word numbers times eight.
"""

from __future__ import annotations

import sys

from jitgrad.core.primitive import GUARD_FAILED as GUARD_FAILED
from jitgrad.plan.memory import ENTRY as ENTRY

WORD = 8
TYPE = 8                       # of any object
ITEMS = 16                     # of a variable-size object: bytes behind its fixed part

# Tensor: a variable-size object, payload inline (or in another object, the owner)
T_DATA = 24                    # pointer to the first element; 0 in a dry recording, and on another device
T_SIZE = 32                    # number of elements
T_AVAL = 40                    # interned aval
T_TRACKED = 48                 # who may want to know of its use: bits below
T_OWNER = 56                   # object that owns the memory (or records, or runs, operations on it), or 0
T_WEAK = 64                    # weak references
T_EPOCH = 72                   # the walk that last numbered this Tensor ...
T_INDEX = 80                   # ... and its number there
T_DTYPE = 88                   # dtype code
T_PAYLOAD = 96                 # (in a dry recording: the value id there)
ON_TAPE = 1                    # some tape watched it or recorded its making
IN_TRACE = 2                   # it depends on what a recorded function was given or read
                               # (4: see core/device.py)
LARGE = 4096                   # payloads from here on are aligned to a cache line
LINE = 64
POOLED = 1 << 16               # payloads from here on lie in blocks of the pool
POOL_BLOCKS = 64
TINY = 16                      # smaller ones have so much room, or the next multiple of a line. For each such size
WAITING = 1 << 17              # blocks wait for the next Tensor, up to about so many bytes,
MOST_WAITING = 1 << 22         # and of all sizes so many
HUGE = 1 << 21 if sys.platform == "linux" else 0       # blocks from here on ask for huge pages, as NumPy's do

# Variable
V_VALUE = 16                   # the Tensor it holds
V_FLAGS = 24
V_EPOCH = 32                   # the log epoch that has noted a read of the present value
V_NAME = 40
V_WEAK = 48
V_SOURCE = 56                  # the walk of which it is a source ...
V_FIRST = 64                   # ... and the Tensor read there: 0 none yet, 1 several
V_EXPLICIT = 72                # the walk whose tape watches it by name
V_SERIAL = 80                  # order of construction
V_PIN = 88                     # memory that has the elements too, for code that has no GIL to hold a Tensor with, or 0:
V_PINNED = 64                  # bytes before them, which say how many bytes they are and begin with their block
V_SIZE = 96
V_TRAINABLE = 1
V_WATCHED = 2                  # a tape asked for it by name

# Op
O_VECTORCALL = 16
O_DICT = 24
O_WEAK = 32
O_CACHE = 40                   # inline cache
O_OPERANDS = 48                # how many leading arguments are operands
O_LITERAL = 56                 # bit i: a Python int at position i is a parameter, not data
O_SLOW = 64                    # Python callable for everything the cache has not seen
O_OPERATOR = 72                # the same when an operator asks: NotImplemented for what is no operand
O_LAST = 80                    # the entry of the last hit
O_SIZE = 88

# An inline cache: CACHE_SETS sets of CACHE_WAYS entries. An entry begins with its key: count, one word an argument,
# keyword names
CACHE_SETS, CACHE_WAYS = 32, 4
KEY_WORDS = 6
# word i of a key is multiplied by MIX + i * MIX_STEP, which is odd
MIX, MIX_STEP = -7046029254386353131, 0x5851F42D4C957F2C
MAX_ARGS = 4
C_FORM = 48                    # form struct
C_POSITION = 56                # operand k stands at argument (word >> 8 * k) & 255
C_ARGS = 64                    # the arguments themselves: a tuple is compared by value
C_BYTES = 96

# weak Python numbers in a key (avals are 2 * id + 1, so odd; pointers are even and above these)
WEAK_FLOAT = 2
WEAK_INT = 4

# A form: a primitive at given operand avals and parameters
F_KERNEL = 0
F_PARAMS = 8
F_INPUTS = 16
F_OUTPUTS = 24
F_FLAGS = 32
F_ID = 40
F_IN_DTYPE = 48                # one word for each of the first MAX_ARGS operands
F_OUT = 80                     # per output: aval, bytes, elements, dtype
F_OUT_BYTES = 32
DIFFERENTIABLE = 1
VIEW = 2                       # the result shares the operand's memory
LONG = 4                       # worth letting other Python threads run
CUT = 8                        # its derivative is a Python callable, kept in the row
GUARDED = 16                   # its recording must be checked in Python (no derivative rule)

# A log: the rows that the tapes of one thread share
L_COUNT = 0
L_CAPACITY = 8
L_FORMS = 16                   # int64 column: form struct
L_FIRST = 24                   # int64 column: where the row's references start
L_REFS = 32                    # operands, outputs (and the rule of a cut), owned
L_REF_COUNT = 40
L_REF_CAPACITY = 48
L_EPOCH = 56                   # moves when a tape starts, so that Variables are noted again
L_READS = 64                   # (Variable, its Tensor, row) of each noted read
L_READ_COUNT = 72
L_READ_CAPACITY = 80
L_TAPES = 88                   # living tapes, a linked list
L_ACTIVE = 96                  # how many of them are recording
L_WHOLE = 104                  # how many of those keep every row
L_FRAMES = 112                 # list for code and position of each row from here on, or 0
L_CUT = 120                    # rows that were cut off at the front so far: what Python calls a row counts them too
L_BYTES = 128

# A tape's machine half
K_LOG = 16
K_NEXT = 24
K_PREVIOUS = 32
K_FLAGS = 40
K_INTERVALS = 48               # (start row, end row or -1 while recording, start read, end read)
K_INTERVAL_COUNT = 56
K_INTERVAL_CAPACITY = 64
K_INTERVAL = 32
K_WATCHES = 72                 # (object, row) of each explicit watch
K_WATCH_COUNT = 80
K_WATCH_CAPACITY = 88
K_MET = 96                     # Variables that it met, kept after it let go of its rows
K_MET_COUNT = 104
K_MET_CAPACITY = 112
K_WEAK = 120
K_SIZE = 128
K_ACCESSED = 1                 # watch_accessed_variables
K_PERSISTENT = 2
K_USED = 4                     # gave its one set of gradients
K_WARNED = 8
K_WHOLE = 16                   # keeps every row, also of what has no gradient: no tape of users, but a function's

# A Plan
P_HASH = 0
P_WORDS = 8                    # signature
P_WORD_COUNT = 16
P_CODE = 24                    # instructions
P_CODE_COUNT = 32
P_ARENA = 40                   # bytes
P_INPUTS = 48                  # int64: number of each input among the walked values
P_INPUT_COUNT = 56
P_OUTPUTS = 64                 # per result: form-like quadruple aval, bytes, elements, dtype; aval -1 for None
P_OUTPUT_COUNT = 72
P_CONSTANTS = 80               # data pointers
P_CONSTANT_COUNT = 88
P_CALL = 96                    # form struct of the `call` row that records a run of this plan, or 0
P_FLAGS = 104
P_BUSY = 112                   # runs in progress
P_USED = 120                   # tick of the last run
P_AVALS = 128                  # of the inputs
P_GUARDS = 136                 # which of its instructions are guards,
P_GUARD_COUNT = 144            # and how many
P_COLD = 152                   # runs until it is worth machine code; 0: it has that, or will not
P_PLACES = 160                 # where its machine code may write results over inputs (see places.py), or 0
P_BYTES = 168

# A Function: it calls one of its traces, or Python
N_VECTORCALL = 16
N_DICT = 24
N_WEAK = 32
N_SLOW = 40                    # Python callables: for every call that no trace matches,
N_FAILED = 48                  # and for one that a guard stopped
N_HELD = 56                    # holds the traces that follow
N_HITS = 64                    # calls that a trace answered
N_COUNT = 72
N_TRACES = 80                  # addresses of trace structs, the last that matched in front
MAX_TRACES = 8                 # that a call tries
N_SIZE = N_TRACES + WORD * MAX_TRACES

# A trace. Offsets into the working memory of a call are in bytes; the table of the plan stands at its start
E_OBJECT = 0                   # the Python object that holds all that is named here
E_POSITIONAL = 8
E_NAMES = 16                   # tuple of keyword names, or 0
E_ARGUMENTS = 24               # how many in all
E_RECIPE = 32                  # instructions of four words: an M_ code, then its operands
E_KEYS = 40                    # how many look at the call,
E_DATA = 48                    # and how many take data after these
E_DISTINCT = 56                # offsets of the inputs that are different objects,
E_DISTINCT_COUNT = 64
E_SET_MASK = 72                # words of the hash table to find that out, less one; 0 for pairs
E_PLAN = 80
E_TAPE_PLAN = 88               # the plan whose runs are recorded, or 0
E_INPUTS = 96                  # per input an M_ code and a I block
E_VARIABLES = 104              # (Variable, offset of the input) of each Variable that is read
E_VARIABLE_COUNT = 112
E_ASSIGNED = 120               # (Variable, offset of the result, whether others have that too, of its input or -1)
E_ASSIGNED_BYTES = 32
E_ASSIGNED_COUNT = 128
E_ANSWER = 136                 # postfix instructions of three words: a W_ code, then its operands
E_ANSWER_COUNT = 144
E_LINKS = 152                  # how many; then (number of a guard, trace that goes on)
E_HITS = 160
E_USED = 168                   # tick of the last run
E_WORDS = 176                  # of working memory:
E_OBJECTS = 184                # the inputs as objects,
E_REGISTERS = 192              # what instructions found, after the arguments,
E_OWNED = 200                  # which of that a call owns (how many, objects),
E_SCALARS = 208                # integers as int64,
E_OUTS = 216                   # results,
E_FRESH = 224                  # values to assign,
E_STACK = 232                  # a stack for the answer,
E_SET = 240                    # the hash table
E_VIEWS = 248                  # (offset of the result, of the input, aval, elements, dtype, offset in bytes) of
E_VIEW_COUNT = 256             # results that share the memory of an input, when no tape records
E_PLAIN = 264                  # 1 + its arguments where `at_once` may do a call, or 0
E_ELSEWHERE = 272              # Python callable that runs the plan where its inputs are, or 0
E_BYTES = 280
PLAIN_WORDS = 128              # of working memory, at most

# Codes of a recipe. Operands: offset of a register (src, dst), object, word
(M_TUPLE, M_LIST,              # src, length, dst of the first item
 M_DICT,                       # src, tuple of keys, dst of the first value
 M_IS, M_EQUAL,                # src, object
 M_FLOAT_KEY, M_INT_KEY,       # src, bits of a float or an integer
 M_GLOBAL, M_ABSENT,           # dictionary, key, dst
 M_CELL,                       # cell, -, dst
 M_ATTR, M_ITEM,               # src, name or key, dst
 M_WORD,                       # address, value
 M_TENSOR,                     # src, aval, offset of the input
 M_ARRAY, M_CAPTURED,          # src or array, I block, offset of the input
 M_SAME,                       # src, -, offset of an input that is this object
 M_FLOAT, M_SINGLE, M_INT,     # src, -, offset of the input; a float as float64 or as float32
 M_VARIABLE,                   # Variable, aval, offset of the input
 M_PLACED,                     # the like of M_TENSOR and M_VARIABLE for elements that are not in this memory
 M_PLACED_VARIABLE) = range(23)

# Codes of an answer
(W_RESULT, W_ARGUMENT,         # offset of a result or a register
 W_CONST,                      # object
 W_TUPLE, W_LIST,              # how many items
 W_DICT,                       # how many values, tuple of keys
 W_CALL,                       # how many items of a list, what to call with it
 W_TAKEN) = range(8)           # offset of a result that is not asked for again

# What an input is, as an array and as a Tensor
I_AVAL, I_BYTES, I_SIZE, I_DTYPE, I_DESCR, I_KIND, I_NDIM, I_DIMS = range(0, 64, 8)

# CPython's and NumPy's own objects, as `types` has found them to be
SIZE = 16                      # of a tuple, list or dictionary
TUPLE_ITEMS = tuple.__basicsize__
LIST_ITEMS = 24
FLOAT_VALUE = 16
FUNCTION_CODE = 48             # of a Python function
A_DATA, A_NDIM, A_DIMS, A_DESCR, A_FLAGS = 16, 24, 32, 56, 64
A_WANTED = 0x101               # aligned and C-contiguous
DESCR_KIND = 24                # letters of kind, type and byte order, flags, number of the type
DESCR_MASK = ~(0xFF << 24)     # without the flags

# The state: one table for the process
S_TENSOR = 0
S_VARIABLE = 8
S_FLOAT = 16
S_LONG = 24
S_CHECK = 32                   # Python callables under debug_nans: a form made something (0: off),
S_CHECK_PLAN = 40              # a plan is about to run (0: off)
S_NONE = 48
S_RECORDERS = 56               # threads that record now ...
S_RECORDER_TABLE = 64          # ... as (thread state, log)
S_EPOCH = 72                   # of walks
S_TICK = 80
S_PLANS = 88                   # open-addressed table of plan structs
S_PLAN_MASK = 96
S_WORDS = 104                  # the last walk: signature words,
S_WORD_CAPACITY = 112
S_WORD_COUNT = 120
S_VALUES = 128                 # its values (borrowed references),
S_VALUE_CAPACITY = 136
S_VALUE_COUNT = 144
S_ROWS = 152                   # its rows,
S_ROW_CAPACITY = 160
S_ROW_COUNT = 168
S_HASH = 176                   # and hash
S_TUPLE = 184
S_LIST = 192
S_SCRATCH = 200                # a small arena for use under the GIL
S_SLOW_READ = 208              # Python callables: a Tensor in a dry recording was read,
S_KERNEL_FAILED = 216          # a kernel returned an error code,
S_TOO_LARGE = 224              # an allocation failed,
S_GUARD = 232                  # a form without a derivative meets a tracked operand
S_TAPE = 240
S_THREADS = 248                # table of (thread state, log) of every thread that ever recorded
S_SHORT = 256                  # whether the last walk lacked memory
S_THREAD_COUNT = 264
S_NEW_LOG = 272                # Python callables: a thread needs a log,
S_TAPE_FLAGS = 280             # a tape is made with arguments,
S_GRADIENT = 288               # a gradient that is out of the ordinary,
S_REENTERED = 296              # a tape is entered twice
S_MISFIT = 304                 # a plan was given other inputs than its own
S_ROW_MADE = 312               # under debug_lines: a row's output was made (0: off),
S_WAS_READ = 320               # a number was read from a recorded Tensor (0: off)
S_DESCRIBE = 328               # the static part of a typed buffer of an aval
S_ASSIGN_ADD = 336             # Python callables: assignments out of the ordinary
S_ASSIGN_SUB = 344
S_POOL = 352                   # table of the large blocks that wait for use, as (bytes, address),
S_POOL_COUNT = 360             # how many,
S_POOL_HELD = 368              # their bytes,
S_POOL_LIMIT = 376             # and at most so many
S_POOL_TAKEN = 384             # bytes of the block taken last
S_RECORDINGS = 392             # recordings that want to see Variables ...
S_POLL = 400                   # work left until a long loop looks for a signal
S_RECORDING_TABLE = 408        # ... as thread states: those that count
S_FUNCTION_CALL = 416          # vectorcall of a Function
S_EXCEPTION = 424              # Exception: what a match lets pass
S_NDARRAY = 432
S_DICT = 440
S_FILENAME = 448               # the string co_filename,
S_PACKAGE = 456                # and what those of this package begin with
S_EAGERLY = 464                # whether functions run as plain Python
S_HOT = 472                    # Python callable: a plan has run often
S_TEAM = 480                   # the threads that share large work
S_ELSEWHERE = 488              # the type of owners of Tensors whose elements are not in this memory, or 0
S_OPS = 496                    # Op objects behind the operator slots, in the order of SYMBOLS
SYMBOLS = ("+", "-", "*", "/", "//", "%", "**", "@", "&", "|", "^",
           "neg", "abs", "~", "<", "<=", "==", "!=", ">", ">=")
FIRST_COMPARISON = SYMBOLS.index("<")
S_WAITING = S_OPS + WORD * len(SYMBOLS)    # (the block freed last, T_DATA leads on from it; how many) by lines of room,
S_WAITING_BYTES = S_WAITING + WORD         # and how many bytes those are
S_OURS = S_WAITING + 2 * WORD              # Python's threads that are ours
S_BYTES = S_OURS + WORD
SCRATCH_BYTES = 1 << 16
MOST_RECORDINGS = 4096

# The team (native/threads.py): words that many threads touch lie on cache lines of their own
TEAM_BUSY = 0                  # whether a caller has it
TEAM_INSIDE = 64               # workers at the present job, + TEAM_CLOSED where none may join
TEAM_NEXT = 128                # the next index
TEAM_SLEEPING = 192            # workers that wait for a signal,
TEAM_WAITING = 200             # and whether the caller does
TEAM_TASK, TEAM_CONTEXT, TEAM_COUNT, TEAM_STATUS = range(256, 288, 8)         # the job
TEAM_HANDS = 288               # workers it may have
TEAM_MISSED, TEAM_LAST = 296, 304                      # nanoseconds that sleepers missed, until when
TEAM_LIMIT = 320               # threads to use, the caller's among them: `set_num_threads`
TEAM_MADE = 328                # workers there are,
TEAM_MOST = 336                # and at most may be: less where the system refused one
TEAM_SPIN = 344                # nanoseconds to look for work, or for the last worker, before sleeping
TEAM_WORTH = 352               # nanoseconds of missed work for which a sleeper is woken
TEAM_WORKER = 360              # address of `worker`
TEAM_CLOCK = 368               # CLOCK_MONOTONIC,
TEAM_SETMASK = 376             # SIG_SETMASK
TEAM_CREATE, TEAM_DETACH, TEAM_SIGMASK, TEAM_LOCK, TEAM_UNLOCK, TEAM_WAIT, TEAM_SIGNAL, TEAM_TIME, TEAM_YIELD = (
    range(384, 456, 8))        # addresses of functions of the C library
TEAM_MASK = 456                # signals that no worker handles, as a sigset_t
TEAM_MUTEX, TEAM_WAKE, TEAM_DONE = 640, 768, 896
TEAM_BLOCK = 1024              # address of `block`
TEAM_BLAS_GET, TEAM_BLAS_SET = 1032, 1040              # of BLAS's functions for its number of threads, or 0
TEAM_BLAS_USERS, TEAM_BLAS_BEFORE = 1048, 1056         # who wants it to be 1; what it was
TEAM_BYTES = 1088
TEAM_CLOSED = 1 << 32

PIECE_WORDS, PIECE_SLOTS = 128, 16                     # of a kernel that is run in pieces, at most

# A Py_buffer, and the block that S_DESCRIBE returns the address of: shape and strides follow it
B_DATA, B_OBJECT, B_BYTES, B_ITEM, B_FLAGS, B_FORMAT, B_SHAPE, B_STRIDES, B_INNER, B_END = range(0, 80, 8)
D_ITEM, D_NDIM, D_FORMAT, D_SHAPE = 0, 8, 16, 24

NO_MEMORY = -1                 # status of a kernel or a sweep that gets no memory to work in,
INTERRUPTED = -2               # of one that a signal handler stopped: its exception is set
NO_THREAD = -3                 # of a call outside Python that assigns Variables on a thread which Python does not know
ORDINAL = 8                    # a sweep that a guard stops says GUARD_FAILED + (number of the instruction << ORDINAL)

# What a row that chooses a Program is given (see native/loops.py) ...
Q_RESULTS, Q_OPERANDS, Q_ROOM, Q_ARENA, Q_CONSTANT_COUNT, Q_CONSTANTS_AT, Q_YES, Q_NO = (0, 8, 16, 24, 32, 40, 48, 64)
# ... and one that loops: how many stages, bytes of working memory and where the arena lies in it, Tensors that all
# stages read, known number of iterations or -1, work of an iteration for polls or 0
R_STAGES, R_ROOM, R_ARENA, R_CONSTS, R_LENGTH, R_WORK = range(0, 48, 8)
R_CONSTS_AT = 48               # slot of the first of those Tensors
R_COND = 56                    # instructions of the condition, their number, table word of its result, the byte's place
R_COUNT = 88                   # slot that gets the number of iterations, or -1
R_STAGE = 96                   # a pointer to each stage's words:
G_CODE, G_CODE_COUNT, G_CARRY_COUNT, G_CARRY, G_STREAM_COUNT, G_STREAM, G_RECORD = range(0, 56, 8)
G_REVERSE, G_CONSTANT_COUNT, G_CONSTANTS, G_CONSTANT_WORD, G_MOVES, G_SWAPS, G_TABLE = range(56, 112, 8)
Y_IN, Y_OUT, Y_SLOT, Y_GIVEN, Y_BYTES, Y_ROOM, Y_WIDTH = range(0, 56, 8)      # of a carry
X_WORD, X_STAGE, X_WHERE, X_STRIDE, X_WIDTH = range(0, 40, 8)                 # of a stream
POLL_WORK = 1 << 24            # work between two looks for a signal: about 10 ms
LOOP_BYTES = 4096              # working memory of a row that loops or chooses lies on the stack up to here

# A recorded call as code without Python calls it (see native/foreign.py). The caller reads the first words
Z_RUN, Z_OBJECT = 0, 8         # the function of ours by address, the Python object
Z_SHAPES = 16                  # pointer to the lengths of all arguments' and then all results' axes, in one row
Z_CODE, Z_COUNT, Z_ARENA = 24, 32, 40          # as in a Plan; the arena has room for what is assigned alone, too
Z_WORDS = 48                   # of the table: arguments, what is read where it lies, results, constants
Z_GIVEN, Z_FIXED_COUNT, Z_FIXED, Z_RESULTS, Z_CONSTANT_COUNT, Z_CONSTANTS = range(56, 104, 8)
Z_OWN_COUNT, Z_OWN = 104, 112  # results after those that the caller gives memory for: their offsets in the arena
Z_ASSIGNED_COUNT, Z_ASSIGNED = 120, 128        # pairs: a Variable, the number of the result that it is to hold
Z_OUTPUTS = 136                # as in a Plan
Z_BYTES = 144
FOREIGN_ARENA = 16384          # working memory lies on the caller's stack up to here

# What a walk answers. ALONE: a target is a source too, and nothing else about it is known to the tape; SHORT: no memory
# DRY: an input has no elements
HIT, MISS, HAS_CUT, NEEDS_CALL, ALONE, SHORT, DRY = 0, 1, 2, 3, 4, 5, 6
