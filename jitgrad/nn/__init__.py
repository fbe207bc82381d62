"""The training kit, with Keras's names and arguments: layers, models, losses, optimizers, metrics.

The functions beside them are TensorFlow's `tf.nn` and Keras's activations.
"""

from jitgrad.nn import activations as activations
from jitgrad.nn import initializers as initializers
from jitgrad.nn import layers as layers
from jitgrad.nn import losses as losses
from jitgrad.nn import metrics as metrics
from jitgrad.nn import optimizers as optimizers
from jitgrad.nn.activations import celu as celu
from jitgrad.nn.activations import elu as elu
from jitgrad.nn.activations import gelu as gelu
from jitgrad.nn.activations import glu as glu
from jitgrad.nn.activations import hard_shrink as hard_shrink
from jitgrad.nn.activations import hard_sigmoid as hard_sigmoid
from jitgrad.nn.activations import hard_silu as hard_silu
from jitgrad.nn.activations import hard_swish as hard_swish
from jitgrad.nn.activations import hard_tanh as hard_tanh
from jitgrad.nn.activations import leaky_relu as leaky_relu
from jitgrad.nn.activations import log_sigmoid as log_sigmoid
from jitgrad.nn.activations import log_softmax as log_softmax
from jitgrad.nn.activations import mish as mish
from jitgrad.nn.activations import relu as relu
from jitgrad.nn.activations import relu6 as relu6
from jitgrad.nn.activations import selu as selu
from jitgrad.nn.activations import sigmoid as sigmoid
from jitgrad.nn.activations import silu as silu
from jitgrad.nn.activations import soft_shrink as soft_shrink
from jitgrad.nn.activations import softmax as softmax
from jitgrad.nn.activations import softplus as softplus
from jitgrad.nn.activations import softsign as softsign
from jitgrad.nn.activations import swish as swish
from jitgrad.nn.activations import tanh as tanh
from jitgrad.nn.activations import tanh_shrink as tanh_shrink
from jitgrad.nn.crossentropies import sigmoid_cross_entropy_with_logits as sigmoid_cross_entropy_with_logits
from jitgrad.nn.crossentropies import softmax_cross_entropy_with_logits as softmax_cross_entropy_with_logits
from jitgrad.nn.crossentropies import (
    sparse_softmax_cross_entropy_with_logits as sparse_softmax_cross_entropy_with_logits,
)
from jitgrad.nn.crossentropies import weighted_cross_entropy_with_logits as weighted_cross_entropy_with_logits
from jitgrad.nn.distances import cosine_similarity as cosine_similarity
from jitgrad.nn.functional import bias_add as bias_add
from jitgrad.nn.functional import dropout as dropout
from jitgrad.nn.functional import l2_loss as l2_loss
from jitgrad.nn.functional import l2_normalize as l2_normalize
from jitgrad.nn.functional import log_poisson_loss as log_poisson_loss
from jitgrad.nn.functional import zero_fraction as zero_fraction
from jitgrad.nn.layer import Layer as Layer
from jitgrad.nn.model import Model as Model
from jitgrad.nn.model import Sequential as Sequential
from jitgrad.ops.statistics import moments as moments
