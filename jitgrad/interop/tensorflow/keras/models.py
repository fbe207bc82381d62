"""`tf.keras.models` names the same classes as `tf.keras`."""

from jitgrad.nn import Model as Model
from jitgrad.nn import Sequential as Sequential
