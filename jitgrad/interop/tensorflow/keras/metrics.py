"""`tf.keras.metrics` is `jitgrad.nn.metrics`."""

from jitgrad.nn.metrics import Accuracy as Accuracy
from jitgrad.nn.metrics import BinaryAccuracy as BinaryAccuracy
from jitgrad.nn.metrics import CategoricalAccuracy as CategoricalAccuracy
from jitgrad.nn.metrics import Mean as Mean
from jitgrad.nn.metrics import Metric as Metric
from jitgrad.nn.metrics import SparseCategoricalAccuracy as SparseCategoricalAccuracy
