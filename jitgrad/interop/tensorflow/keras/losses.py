"""`tf.keras.losses` is `jitgrad.nn.losses`."""

from jitgrad.nn.losses import BinaryCrossentropy as BinaryCrossentropy
from jitgrad.nn.losses import CategoricalCrossentropy as CategoricalCrossentropy
from jitgrad.nn.losses import Loss as Loss
from jitgrad.nn.losses import MeanAbsoluteError as MeanAbsoluteError
from jitgrad.nn.losses import MeanSquaredError as MeanSquaredError
from jitgrad.nn.losses import SparseCategoricalCrossentropy as SparseCategoricalCrossentropy
from jitgrad.nn.losses import binary_crossentropy as binary_crossentropy
from jitgrad.nn.losses import categorical_crossentropy as categorical_crossentropy
from jitgrad.nn.losses import get as get
from jitgrad.nn.losses import mae as mae
from jitgrad.nn.losses import mean_absolute_error as mean_absolute_error
from jitgrad.nn.losses import mean_squared_error as mean_squared_error
from jitgrad.nn.losses import mse as mse
from jitgrad.nn.losses import sparse_categorical_crossentropy as sparse_categorical_crossentropy
