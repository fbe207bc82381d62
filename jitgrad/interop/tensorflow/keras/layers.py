"""`tf.keras.layers` is `jitgrad.nn.layers`."""

from jitgrad.nn.layers import Activation as Activation
from jitgrad.nn.layers import Dense as Dense
from jitgrad.nn.layers import Dropout as Dropout
from jitgrad.nn.layers import Flatten as Flatten
from jitgrad.nn.layers import Layer as Layer
from jitgrad.nn.layers import ReLU as ReLU
from jitgrad.nn.layers import Rescaling as Rescaling
from jitgrad.nn.layers import Softmax as Softmax
