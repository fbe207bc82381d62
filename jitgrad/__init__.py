"""jitgrad: automatic differentiation for fast CPU training loops, with a TensorFlow-style tape."""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from jitgrad._version import __version__ as __version__
from jitgrad.core import backend as _backend
from jitgrad.execute.cpu.machine import Machine as _Machine

_backend.use(_Machine())

from jitgrad import ops as _ops

_ops.fill()
globals().update(_ops.public())  # an op for each entry of the table; composites below go by the same names

from jitgrad import linalg as linalg
from jitgrad.core.device import device as device
from jitgrad.core.device import devices as devices
from jitgrad.core.dtypes import bool_ as bool_
from jitgrad.core.dtypes import float32 as float32
from jitgrad.core.dtypes import float64 as float64
from jitgrad.core.dtypes import int32 as int32
from jitgrad.core.dtypes import int64 as int64
from jitgrad.core.dtypes import set_default_dtype as set_default_dtype
from jitgrad.core.program import Program as Program
from jitgrad.core.tensor import TensorMethods as _TensorMethods
from jitgrad.core.tensor import install as _install
from jitgrad.core.variable import VariableMethods as _VariableMethods
from jitgrad.execute.cpu.library import kernels as kernels
from jitgrad.execute.cpu.threads import get_num_threads as get_num_threads
from jitgrad.execute.cpu.threads import set_num_threads as set_num_threads
from jitgrad.frontend.batched import hessian as hessian
from jitgrad.frontend.batched import jacfwd as jacfwd
from jitgrad.frontend.batched import jacobian as jacobian
from jitgrad.frontend.batched import jacrev as jacrev
from jitgrad.frontend.batched import vmap as vmap
from jitgrad.frontend.checkpoint import checkpoint as checkpoint
from jitgrad.frontend.checkpoint import recompute_grad as recompute_grad
from jitgrad.frontend.control import cond as cond
from jitgrad.frontend.control import fori_loop as fori_loop
from jitgrad.frontend.control import scan as scan
from jitgrad.frontend.control import while_loop as while_loop
from jitgrad.frontend.custom import custom_gradient as custom_gradient
from jitgrad.frontend.custom import stop_gradient as stop_gradient
from jitgrad.frontend.custom_jvp import custom_jvp as custom_jvp
from jitgrad.frontend.devices import DeviceMethods as _DeviceMethods
from jitgrad.frontend.devices import from_dlpack as from_dlpack
from jitgrad.frontend.forward import ForwardAccumulator as ForwardAccumulator
from jitgrad.frontend.forward import hvp as hvp
from jitgrad.frontend.forward import jvp as jvp
from jitgrad.frontend.forward import linearize as linearize
from jitgrad.frontend.lines import debug_lines as debug_lines
from jitgrad.frontend.nans import debug_nans as debug_nans
from jitgrad.frontend.tape import GradientTape as GradientTape
from jitgrad.frontend.tape import UnconnectedGradients as UnconnectedGradients
from jitgrad.frontend.transforms import grad as grad
from jitgrad.frontend.transforms import value_and_grad as value_and_grad
from jitgrad.frontend.transforms import vjp as vjp
from jitgrad.ops.along import *
from jitgrad.ops.composite import *
from jitgrad.ops.creation import *
from jitgrad.ops.logarithms import *
from jitgrad.ops.methods import *
from jitgrad.ops.methods import Operations as _Operations
from jitgrad.ops.products import *
from jitgrad.ops.shapes import *
from jitgrad.ops.statistics import *

if _TYPE_CHECKING:
    from jitgrad.frontend.function import function as function
    from jitgrad.interop.numba.op import numba_op as numba_op

Tensor: _Any = _Machine.Tensor
Variable: _Any = _Machine.Variable
for _methods, _target in ((_Operations, Tensor), (_TensorMethods, Tensor), (_DeviceMethods, Tensor),
                          (_Operations, Variable), (_VariableMethods, Variable), (_DeviceMethods, Variable)):
    _install(_methods, _target)
_Machine.complete(_VariableMethods)

from jitgrad import random as random  # its generator holds a Variable


def __getattr__(name: str) -> _Any:
    if name in ("nn", "interop", "testing"):       # not needed by a loop that only differentiates
        import importlib
        return importlib.import_module(f"jitgrad.{name}")
    if name == "function":                         # nor is this, which brings machine code of its own
        from jitgrad.frontend.function import function
        return globals().setdefault(name, function)
    if name == "numba_op":                         # nor this, which brings Numba
        from jitgrad.interop.numba.op import numba_op
        return globals().setdefault(name, numba_op)
    if name in _ops.public():                       # an entry that was added later
        return _ops.public()[name]
    raise AttributeError(f"module 'jitgrad' has no attribute {name!r}")
