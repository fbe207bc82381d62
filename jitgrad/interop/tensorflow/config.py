"""`tf.config`: how functions run."""

from jitgrad.frontend.eagerly import functions_run_eagerly as functions_run_eagerly
from jitgrad.frontend.eagerly import run_functions_eagerly as run_functions_eagerly
