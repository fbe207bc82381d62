"""`tf.autodiff`: both modes as classes."""

from jitgrad import ForwardAccumulator as ForwardAccumulator
from jitgrad import GradientTape as GradientTape
