"""The training kit, with Keras's names and arguments: layers, models, losses, optimizers, metrics."""

from jitgrad.nn import activations as activations
from jitgrad.nn import initializers as initializers
from jitgrad.nn import layers as layers
from jitgrad.nn import losses as losses
from jitgrad.nn import metrics as metrics
from jitgrad.nn import optimizers as optimizers
from jitgrad.nn.layer import Layer as Layer
from jitgrad.nn.model import Model as Model
from jitgrad.nn.model import Sequential as Sequential
