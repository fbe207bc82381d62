"""The tape: recording, gradients, what a row costs in time and bytes, and the workloads of the comparison."""

from __future__ import annotations

import jitgrad as jg
from benchmarks import own
from benchmarks import workloads as w
from benchmarks.libraries import use_jitgrad


class Recording:
    """1,000 additions of 16 float32, with and without a tape."""

    def setup(self) -> None:
        self.a, self.b = (jg.asarray(x) for x in w.op_inputs())
        self.time_recorded()                    # asv times a call after each setup, so the first would be all it sees

    def time_no_tape(self) -> None:
        for _ in range(w.OPS_A_TAPE):
            self.a + self.b

    def time_recorded(self) -> None:
        with jg.GradientTape() as tape:
            tape.watch(self.a)
            for _ in range(w.OPS_A_TAPE):
                self.a + self.b

    def track_bytes_a_row(self) -> float:
        with jg.GradientTape() as tape:
            tape.watch(self.a)
            for _ in range(w.OPS_A_TAPE):
                self.a + self.b
        return tape.nbytes / w.OPS_A_TAPE

    track_bytes_a_row.unit = "bytes"

    def peakmem_recorded(self) -> None:
        """The process with a tape of 200,000 rows."""
        with jg.GradientTape() as tape:
            tape.watch(self.a)
            for _ in range(200 * w.OPS_A_TAPE):
                self.a + self.b


class Workloads:
    """A turn of the loop of `benchmarks.peers`."""

    params = ["chain", "tutorial", "mlp"]
    param_names = ["workload"]

    def setup(self, workload: str) -> None:
        self.loop = use_jitgrad.WORKLOADS[workload]()[0].loop
        self.loop(3)

    def time_10_turns(self, workload: str) -> None:
        self.loop(10)


class Backward:
    """The sweep, and the making of backward programs."""

    def setup(self) -> None:
        self.x = jg.asarray(w.chain_input())
        self.tape, self.y = own.tape_of(own.ROWS, self.x)
        self.time_gradient_again()

    def time_gradient_again(self) -> None:
        self.tape.gradient(self.y, self.x)

    def track_gradient_to_primal(self) -> float:
        return own.gradient_ratio(5, 0.005)["ratio"]

    def track_new_length(self) -> float:
        return own.new_lengths(5)["first"]

    track_new_length.unit = "us a row"
