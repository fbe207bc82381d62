"""`tf.keras.activations` is `jitgrad.nn.activations`."""

from jitgrad.nn.activations import elu as elu
from jitgrad.nn.activations import exponential as exponential
from jitgrad.nn.activations import get as get
from jitgrad.nn.activations import hard_sigmoid as hard_sigmoid
from jitgrad.nn.activations import leaky_relu as leaky_relu
from jitgrad.nn.activations import linear as linear
from jitgrad.nn.activations import log_softmax as log_softmax
from jitgrad.nn.activations import mish as mish
from jitgrad.nn.activations import relu as relu
from jitgrad.nn.activations import selu as selu
from jitgrad.nn.activations import sigmoid as sigmoid
from jitgrad.nn.activations import silu as silu
from jitgrad.nn.activations import softmax as softmax
from jitgrad.nn.activations import softplus as softplus
from jitgrad.nn.activations import softsign as softsign
from jitgrad.nn.activations import swish as swish
from jitgrad.nn.activations import tanh as tanh
