"""`tf.keras.initializers` is `jitgrad.nn.initializers`."""

from jitgrad.nn.initializers import Constant as Constant
from jitgrad.nn.initializers import GlorotNormal as GlorotNormal
from jitgrad.nn.initializers import GlorotUniform as GlorotUniform
from jitgrad.nn.initializers import HeNormal as HeNormal
from jitgrad.nn.initializers import HeUniform as HeUniform
from jitgrad.nn.initializers import Identity as Identity
from jitgrad.nn.initializers import Initializer as Initializer
from jitgrad.nn.initializers import LecunNormal as LecunNormal
from jitgrad.nn.initializers import LecunUniform as LecunUniform
from jitgrad.nn.initializers import Ones as Ones
from jitgrad.nn.initializers import Orthogonal as Orthogonal
from jitgrad.nn.initializers import RandomNormal as RandomNormal
from jitgrad.nn.initializers import RandomUniform as RandomUniform
from jitgrad.nn.initializers import TruncatedNormal as TruncatedNormal
from jitgrad.nn.initializers import VarianceScaling as VarianceScaling
from jitgrad.nn.initializers import Zeros as Zeros
from jitgrad.nn.initializers import get as get
