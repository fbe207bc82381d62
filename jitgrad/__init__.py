"""jitgrad: automatic differentiation for fast CPU training loops, with a TensorFlow-style tape."""

from __future__ import annotations

from typing import Any as _Any

from jitgrad._version import __version__ as __version__
from jitgrad.core import backend as _backend
from jitgrad.execute.cpu.machine import Machine as _Machine

_backend.use(_Machine())

from jitgrad import ops as _ops

_ops.fill()
globals().update(_ops.public())  # an op for each entry of the table; composites below go by the same names

from jitgrad import linalg as linalg
from jitgrad import random as random
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
from jitgrad.frontend.custom import custom_gradient as custom_gradient
from jitgrad.frontend.custom import stop_gradient as stop_gradient
from jitgrad.frontend.lines import debug_lines as debug_lines
from jitgrad.frontend.nans import debug_nans as debug_nans
from jitgrad.frontend.tape import GradientTape as GradientTape
from jitgrad.frontend.tape import UnconnectedGradients as UnconnectedGradients
from jitgrad.ops.along import *
from jitgrad.ops.composite import *
from jitgrad.ops.creation import *
from jitgrad.ops.logarithms import *
from jitgrad.ops.methods import *
from jitgrad.ops.methods import Operations as _Operations
from jitgrad.ops.products import *
from jitgrad.ops.rounding import *
from jitgrad.ops.shapes import *
from jitgrad.ops.statistics import *
from jitgrad import random as random  # noqa: E402
from jitgrad.core.dtypes import bool_ as bool_  # noqa: E402
from jitgrad.core.dtypes import float32 as float32  # noqa: E402
from jitgrad.core.dtypes import float64 as float64  # noqa: E402
from jitgrad.core.dtypes import int32 as int32  # noqa: E402
from jitgrad.core.dtypes import int64 as int64  # noqa: E402
from jitgrad.core.dtypes import set_default_dtype as set_default_dtype  # noqa: E402
from jitgrad.core.program import Program as Program  # noqa: E402
from jitgrad.core.tensor import TensorMethods as _TensorMethods  # noqa: E402
from jitgrad.core.tensor import install as _install  # noqa: E402
from jitgrad.core.variable import VariableMethods as _VariableMethods  # noqa: E402
from jitgrad.execute.cpu.library import kernels as kernels  # noqa: E402
from jitgrad.frontend.custom import custom_gradient as custom_gradient  # noqa: E402
from jitgrad.frontend.custom import stop_gradient as stop_gradient  # noqa: E402
from jitgrad.frontend.lines import debug_lines as debug_lines  # noqa: E402
from jitgrad.frontend.tape import GradientTape as GradientTape  # noqa: E402
from jitgrad.frontend.tape import UnconnectedGradients as UnconnectedGradients  # noqa: E402
from jitgrad.ops.composite import argmax as argmax  # noqa: E402
from jitgrad.ops.composite import argmin as argmin  # noqa: E402
from jitgrad.ops.composite import astype as astype  # noqa: E402
from jitgrad.ops.composite import broadcast_to as broadcast_to  # noqa: E402
from jitgrad.ops.composite import concat as concat  # noqa: E402
from jitgrad.ops.composite import expand_dims as expand_dims  # noqa: E402
from jitgrad.ops.composite import identity as identity  # noqa: E402
from jitgrad.ops.composite import log_softmax as log_softmax  # noqa: E402
from jitgrad.ops.composite import logsumexp as logsumexp  # noqa: E402
from jitgrad.ops.composite import matmul as matmul  # noqa: E402
from jitgrad.ops.composite import matrix_transpose as matrix_transpose  # noqa: E402
from jitgrad.ops.composite import max as max  # noqa: E402
from jitgrad.ops.composite import mean as mean  # noqa: E402
from jitgrad.ops.composite import min as min  # noqa: E402
from jitgrad.ops.composite import one_hot as one_hot  # noqa: E402
from jitgrad.ops.composite import permute_dims as permute_dims  # noqa: E402
from jitgrad.ops.composite import reshape as reshape  # noqa: E402
from jitgrad.ops.composite import softmax as softmax  # noqa: E402
from jitgrad.ops.composite import squeeze as squeeze  # noqa: E402
from jitgrad.ops.composite import stack as stack  # noqa: E402
from jitgrad.ops.composite import sum as sum  # noqa: E402
from jitgrad.ops.composite import take as take  # noqa: E402
from jitgrad.ops.creation import arange as arange  # noqa: E402
from jitgrad.ops.creation import asarray as asarray  # noqa: E402
from jitgrad.ops.creation import constant as constant  # noqa: E402
from jitgrad.ops.creation import eye as eye  # noqa: E402
from jitgrad.ops.creation import full as full  # noqa: E402
from jitgrad.ops.creation import linspace as linspace  # noqa: E402
from jitgrad.ops.creation import ones as ones  # noqa: E402
from jitgrad.ops.creation import ones_like as ones_like  # noqa: E402
from jitgrad.ops.creation import zeros as zeros  # noqa: E402
from jitgrad.ops.creation import zeros_like as zeros_like  # noqa: E402
from jitgrad.ops.exponential import xlog1py as xlog1py  # noqa: E402
from jitgrad.ops.exponential import xlogy as xlogy  # noqa: E402
from jitgrad.ops.methods import Operations as _Operations  # noqa: E402
from jitgrad.ops.rounding import clip as clip  # noqa: E402

Tensor: _Any = _Machine.Tensor
Variable: _Any = _Machine.Variable
for _methods, _target in ((_Operations, Tensor), (_TensorMethods, Tensor), (_Operations, Variable),
                          (_VariableMethods, Variable)):
    _install(_methods, _target)
_Machine.complete(_VariableMethods)


def __getattr__(name: str) -> _Any:
    if name in ("nn", "interop", "testing"):       # not needed by a loop that only differentiates
        import importlib
        return importlib.import_module(f"jitgrad.{name}")
    if name in _ops.public():                       # an entry that was added later
        return _ops.public()[name]
    raise AttributeError(f"module 'jitgrad' has no attribute {name!r}")
