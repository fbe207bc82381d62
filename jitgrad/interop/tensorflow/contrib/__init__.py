"""`tf.contrib` of TensorFlow 1: its eager part."""

from jitgrad.interop.tensorflow.contrib import eager as eager
