"""`tf.keras`: jitgrad's training kit under the names that tutorials import."""

from jitgrad.interop.tensorflow.keras import activations as activations
from jitgrad.interop.tensorflow.keras import initializers as initializers
from jitgrad.interop.tensorflow.keras import layers as layers
from jitgrad.interop.tensorflow.keras import losses as losses
from jitgrad.interop.tensorflow.keras import metrics as metrics
from jitgrad.interop.tensorflow.keras import models as models
from jitgrad.interop.tensorflow.keras import optimizers as optimizers
from jitgrad.nn import Model as Model
from jitgrad.nn import Sequential as Sequential
