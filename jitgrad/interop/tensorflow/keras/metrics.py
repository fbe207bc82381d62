"""`tf.keras.metrics` is `jitgrad.nn.metrics`."""

from jitgrad.nn.metrics import Accuracy as Accuracy
from jitgrad.nn.metrics import BinaryAccuracy as BinaryAccuracy
from jitgrad.nn.metrics import BinaryCrossentropy as BinaryCrossentropy
from jitgrad.nn.metrics import CategoricalAccuracy as CategoricalAccuracy
from jitgrad.nn.metrics import CategoricalCrossentropy as CategoricalCrossentropy
from jitgrad.nn.metrics import CategoricalHinge as CategoricalHinge
from jitgrad.nn.metrics import CosineSimilarity as CosineSimilarity
from jitgrad.nn.metrics import Hinge as Hinge
from jitgrad.nn.metrics import KLDivergence as KLDivergence
from jitgrad.nn.metrics import LogCoshError as LogCoshError
from jitgrad.nn.metrics import Mean as Mean
from jitgrad.nn.metrics import MeanAbsoluteError as MeanAbsoluteError
from jitgrad.nn.metrics import MeanAbsolutePercentageError as MeanAbsolutePercentageError
from jitgrad.nn.metrics import MeanMetricWrapper as MeanMetricWrapper
from jitgrad.nn.metrics import MeanSquaredError as MeanSquaredError
from jitgrad.nn.metrics import MeanSquaredLogarithmicError as MeanSquaredLogarithmicError
from jitgrad.nn.metrics import Metric as Metric
from jitgrad.nn.metrics import Poisson as Poisson
from jitgrad.nn.metrics import RootMeanSquaredError as RootMeanSquaredError
from jitgrad.nn.metrics import SparseCategoricalAccuracy as SparseCategoricalAccuracy
from jitgrad.nn.metrics import SparseCategoricalCrossentropy as SparseCategoricalCrossentropy
from jitgrad.nn.metrics import SparseTopKCategoricalAccuracy as SparseTopKCategoricalAccuracy
from jitgrad.nn.metrics import SquaredHinge as SquaredHinge
from jitgrad.nn.metrics import Sum as Sum
from jitgrad.nn.metrics import TopKCategoricalAccuracy as TopKCategoricalAccuracy
