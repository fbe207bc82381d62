"""`tf.keras.optimizers` is `jitgrad.nn.optimizers`."""

from jitgrad.nn.optimizers import SGD as SGD
from jitgrad.nn.optimizers import Adam as Adam
from jitgrad.nn.optimizers import Optimizer as Optimizer
from jitgrad.nn.optimizers import get as get
