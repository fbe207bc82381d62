"""TensorFlow's names for jitgrad, so that what people learn the tape from runs with only the import changed.

>>> import jitgrad.interop.tensorflow as tf
>>> w1, w2 = tf.Variable(5.0), tf.Variable(3.0)
>>> with tf.GradientTape() as tape:
...     z = 3 * w1 ** 2 + 2 * w1 * w2
>>> [float(g) for g in tape.gradient(z, [w1, w2])]
[36.0, 10.0]

Names whose arguments agree are the same objects as in `jitgrad`; the others are functions whose first line says what
differs. A ``name=`` is accepted where TensorFlow takes one, and ignored.
"""

from __future__ import annotations

import jitgrad as _jg
from jitgrad import GradientTape as GradientTape
from jitgrad import Tensor as Tensor
from jitgrad import UnconnectedGradients as UnconnectedGradients
from jitgrad import Variable as Variable
from jitgrad import constant as constant
from jitgrad import custom_gradient as custom_gradient
from jitgrad import float32 as float32
from jitgrad import float64 as float64
from jitgrad import int32 as int32
from jitgrad import int64 as int64
from jitgrad import recompute_grad as recompute_grad
from jitgrad.interop.tensorflow import autodiff as autodiff
from jitgrad.interop.tensorflow import config as config
from jitgrad.interop.tensorflow import contrib as contrib
from jitgrad.interop.tensorflow import keras as keras
from jitgrad.interop.tensorflow import linalg as linalg
from jitgrad.interop.tensorflow import math as math
from jitgrad.interop.tensorflow import nn as nn
from jitgrad.interop.tensorflow import random as random
from jitgrad.interop.tensorflow.array_ops import broadcast_to as broadcast_to
from jitgrad.interop.tensorflow.array_ops import cast as cast
from jitgrad.interop.tensorflow.array_ops import concat as concat
from jitgrad.interop.tensorflow.array_ops import convert_to_tensor as convert_to_tensor
from jitgrad.interop.tensorflow.array_ops import expand_dims as expand_dims
from jitgrad.interop.tensorflow.array_ops import eye as eye
from jitgrad.interop.tensorflow.array_ops import fill as fill
from jitgrad.interop.tensorflow.array_ops import gather as gather
from jitgrad.interop.tensorflow.array_ops import identity as identity
from jitgrad.interop.tensorflow.array_ops import linspace as linspace
from jitgrad.interop.tensorflow.array_ops import one_hot as one_hot
from jitgrad.interop.tensorflow.array_ops import ones as ones
from jitgrad.interop.tensorflow.array_ops import ones_like as ones_like
from jitgrad.interop.tensorflow.array_ops import range as range
from jitgrad.interop.tensorflow.array_ops import rank as rank
from jitgrad.interop.tensorflow.array_ops import reshape as reshape
from jitgrad.interop.tensorflow.array_ops import shape as shape
from jitgrad.interop.tensorflow.array_ops import size as size
from jitgrad.interop.tensorflow.array_ops import squeeze as squeeze
from jitgrad.interop.tensorflow.array_ops import stack as stack
from jitgrad.interop.tensorflow.array_ops import stop_gradient as stop_gradient
from jitgrad.interop.tensorflow.array_ops import transpose as transpose
from jitgrad.interop.tensorflow.array_ops import unstack as unstack
from jitgrad.interop.tensorflow.array_ops import where as where
from jitgrad.interop.tensorflow.array_ops import zeros as zeros
from jitgrad.interop.tensorflow.array_ops import zeros_like as zeros_like
from jitgrad.interop.tensorflow.contrib.eager import executing_eagerly as executing_eagerly
from jitgrad.interop.tensorflow.control_flow import case as case
from jitgrad.interop.tensorflow.control_flow import cond as cond
from jitgrad.interop.tensorflow.control_flow import switch_case as switch_case
from jitgrad.interop.tensorflow.control_flow import while_loop as while_loop
from jitgrad.interop.tensorflow.functional import foldl as foldl
from jitgrad.interop.tensorflow.functional import foldr as foldr
from jitgrad.interop.tensorflow.functional import map_fn as map_fn
from jitgrad.interop.tensorflow.functional import scan as scan
from jitgrad.interop.tensorflow.functional import vectorized_map as vectorized_map
from jitgrad.interop.tensorflow.functions import TensorSpec as TensorSpec
from jitgrad.interop.tensorflow.functions import function as function
from jitgrad.interop.tensorflow.keras import initializers as initializers
from jitgrad.interop.tensorflow.keras import losses as losses
from jitgrad.interop.tensorflow.keras import metrics as metrics
from jitgrad.interop.tensorflow.keras import optimizers as optimizers
from jitgrad.interop.tensorflow.linalg import clip_by_global_norm as clip_by_global_norm
from jitgrad.interop.tensorflow.linalg import clip_by_norm as clip_by_norm
from jitgrad.interop.tensorflow.linalg import global_norm as global_norm
from jitgrad.interop.tensorflow.linalg import matmul as matmul
from jitgrad.interop.tensorflow.linalg import norm as norm
from jitgrad.interop.tensorflow.math import abs as abs
from jitgrad.interop.tensorflow.math import acos as acos
from jitgrad.interop.tensorflow.math import acosh as acosh
from jitgrad.interop.tensorflow.math import add as add
from jitgrad.interop.tensorflow.math import add_n as add_n
from jitgrad.interop.tensorflow.math import argmax as argmax
from jitgrad.interop.tensorflow.math import argmin as argmin
from jitgrad.interop.tensorflow.math import asin as asin
from jitgrad.interop.tensorflow.math import asinh as asinh
from jitgrad.interop.tensorflow.math import atan as atan
from jitgrad.interop.tensorflow.math import atan2 as atan2
from jitgrad.interop.tensorflow.math import atanh as atanh
from jitgrad.interop.tensorflow.math import clip_by_value as clip_by_value
from jitgrad.interop.tensorflow.math import cos as cos
from jitgrad.interop.tensorflow.math import cosh as cosh
from jitgrad.interop.tensorflow.math import divide as divide
from jitgrad.interop.tensorflow.math import equal as equal
from jitgrad.interop.tensorflow.math import exp as exp
from jitgrad.interop.tensorflow.math import floor as floor
from jitgrad.interop.tensorflow.math import floordiv as floordiv
from jitgrad.interop.tensorflow.math import floormod as floormod
from jitgrad.interop.tensorflow.math import greater as greater
from jitgrad.interop.tensorflow.math import greater_equal as greater_equal
from jitgrad.interop.tensorflow.math import less as less
from jitgrad.interop.tensorflow.math import less_equal as less_equal
from jitgrad.interop.tensorflow.math import log as log
from jitgrad.interop.tensorflow.math import logical_and as logical_and
from jitgrad.interop.tensorflow.math import logical_not as logical_not
from jitgrad.interop.tensorflow.math import logical_or as logical_or
from jitgrad.interop.tensorflow.math import maximum as maximum
from jitgrad.interop.tensorflow.math import minimum as minimum
from jitgrad.interop.tensorflow.math import mod as mod
from jitgrad.interop.tensorflow.math import multiply as multiply
from jitgrad.interop.tensorflow.math import negative as negative
from jitgrad.interop.tensorflow.math import not_equal as not_equal
from jitgrad.interop.tensorflow.math import pow as pow
from jitgrad.interop.tensorflow.math import reduce_logsumexp as reduce_logsumexp
from jitgrad.interop.tensorflow.math import reduce_max as reduce_max
from jitgrad.interop.tensorflow.math import reduce_mean as reduce_mean
from jitgrad.interop.tensorflow.math import reduce_min as reduce_min
from jitgrad.interop.tensorflow.math import reduce_sum as reduce_sum
from jitgrad.interop.tensorflow.math import round as round
from jitgrad.interop.tensorflow.math import sigmoid as sigmoid
from jitgrad.interop.tensorflow.math import sign as sign
from jitgrad.interop.tensorflow.math import sin as sin
from jitgrad.interop.tensorflow.math import sinh as sinh
from jitgrad.interop.tensorflow.math import sqrt as sqrt
from jitgrad.interop.tensorflow.math import square as square
from jitgrad.interop.tensorflow.math import squared_difference as squared_difference
from jitgrad.interop.tensorflow.math import subtract as subtract
from jitgrad.interop.tensorflow.math import tan as tan
from jitgrad.interop.tensorflow.math import tanh as tanh
from jitgrad.interop.tensorflow.math import truediv as truediv
from jitgrad.interop.tensorflow.math import truncatediv as truncatediv
from jitgrad.interop.tensorflow.math import truncatemod as truncatemod
from jitgrad.interop.tensorflow.sequences import argsort as argsort
from jitgrad.interop.tensorflow.sequences import cumprod as cumprod
from jitgrad.interop.tensorflow.sequences import cumsum as cumsum
from jitgrad.interop.tensorflow.sequences import einsum as einsum
from jitgrad.interop.tensorflow.sequences import gather_nd as gather_nd
from jitgrad.interop.tensorflow.sequences import meshgrid as meshgrid
from jitgrad.interop.tensorflow.sequences import pad as pad
from jitgrad.interop.tensorflow.sequences import reduce_all as reduce_all
from jitgrad.interop.tensorflow.sequences import reduce_any as reduce_any
from jitgrad.interop.tensorflow.sequences import reduce_prod as reduce_prod
from jitgrad.interop.tensorflow.sequences import repeat as repeat
from jitgrad.interop.tensorflow.sequences import reverse as reverse
from jitgrad.interop.tensorflow.sequences import roll as roll
from jitgrad.interop.tensorflow.sequences import sort as sort
from jitgrad.interop.tensorflow.sequences import split as split
from jitgrad.interop.tensorflow.sequences import tensor_scatter_nd_add as tensor_scatter_nd_add
from jitgrad.interop.tensorflow.sequences import tensordot as tensordot
from jitgrad.interop.tensorflow.sequences import tile as tile

bool, double = _jg.bool_, float64
lin_space, random_normal, random_uniform = linspace, random.normal, random.uniform      # TensorFlow 1
set_random_seed = random.set_seed
newaxis = None


def enable_eager_execution(config: object = None, device_policy: object = None, execution_mode: object = None) -> None:
    """Nothing to do: operations always run when they are called (TensorFlow 1)."""


enable_v2_behavior = enable_eager_execution
