"""What the native object file defines for others, by the module where it is written."""

from __future__ import annotations

BUILTINS = {                     # become builtins of Python, called as (self, args, count)
    "calls": ("run_form", "row_note", "read_note", "recording_enter", "recording_leave"),
    "values": ("variable_read", "tensor_make"),
    "tapes": ("tape_start", "tape_stop", "tape_release", "tape_watch", "thread_log", "note_frames", "append_cut"),
    "inside": ("tape_variables", "tape_reads", "tape_watches", "open_tapes", "log_rows", "log_row"),
    "sweep": ("plan_run", "fill_rows"),
    "gradient": ("gradient", "connect", "tape_finish"),
    "functions": ("set_traces",),
}
INNER = {                        # slots and methods of types, kernels, functions called by address
    "calls": ("op_vectorcall", "key_set", "slot_binary", "slot_unary", "compare_slot"),
    "values": ("to_float", "to_int", "to_index", "to_bool", "get_buffer", "tensor_dealloc", "variable_dealloc",
               "variable_assign_add", "variable_assign_sub"),
    "drivers": ("broadcast", "move", "place", "gemm"),
    "loops": ("branch", "loop"),
    "tapes": ("tape_new", "tape_enter", "tape_exit", "tape_dealloc", "tape_traverse", "tape_clear"),
    "gradient": ("tape_gradient",),
    "functions": ("function_new", "function_get", "function_traverse", "function_clear", "function_dealloc"),
    "replay": ("function_vectorcall",),
}


def names() -> list[str]:
    """Every symbol."""
    return [name for table in (BUILTINS, INNER) for group in table.values() for name in group]
