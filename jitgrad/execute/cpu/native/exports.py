"""What the native object files define for others, by the module where it is written.

There are two: Tensors and tapes need the first at once, and the second waits for the first recorded function or loop.
"""

from __future__ import annotations

BUILTINS = {                     # become builtins of Python, called as (self, args, count)
    "calls": ("run_form", "row_note", "read_note", "recording_enter", "recording_leave"),
    "values": ("variable_read", "variable_hold", "variable_pin", "tensor_make", "tensor_placed"),
    "tapes": ("tape_start", "tape_stop", "tape_release", "tape_watch", "thread_log", "note_frames", "append_cut"),
    "inside": ("tape_variables", "tape_reads", "tape_watches", "open_tapes", "sharing_tapes", "log_rows", "log_row"),
    "sweep": ("plan_run", "fill_rows"),
    "gradient": ("gradient", "connect", "tape_finish"),
    "functions": ("set_traces",),
}
INNER = {                        # slots and methods of types, kernels, functions called by address
    "calls": ("op_vectorcall", "key_set", "slot_binary", "slot_unary", "compare_slot"),
    "values": ("to_float", "to_int", "to_index", "to_bool", "get_buffer", "tensor_dealloc", "variable_dealloc",
               "variable_assign_add", "variable_assign_sub"),
    "drivers": ("broadcast", "move", "place"),
    "blas": ("gemm", "block"),
    "threads": ("parallel", "worker"),
    "pieces": ("divide", "piece"),
    "loops": ("branch", "loop"),
    "tapes": ("tape_new", "tape_enter", "tape_exit", "tape_dealloc", "tape_traverse", "tape_clear"),
    "gradient": ("tape_gradient",),
    "functions": ("function_new", "function_get", "function_traverse", "function_clear", "function_dealloc"),
    "replay": ("function_vectorcall",),
    "foreign": ("foreign_run",),
}


LATER = ("functions", "replay", "loops", "foreign")


def names(later: bool) -> dict[str, str]:
    """Every symbol of the second object file, or of the first, and where it is written."""
    return {name: place for table in (BUILTINS, INNER) for place, group in table.items()
            for name in group if (place in LATER) == later}
