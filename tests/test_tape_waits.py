"""Tests of TensorFlow's that wait for a later step. Each fails today because one name does not exist."""

import numpy as np

import jitgrad as jg
from tape_omissions import waits


@waits("testMultiValuePreservesIfNotDiffedAgainst")
def test_convolution_differentiated_in_the_image():
    image, kernel = jg.constant([[[[1.0]]]]), jg.constant([[[[2.0]]]])
    with jg.GradientTape() as tape:
        tape.watch(image)
        y = jg.nn.conv2d(image, kernel, [1, 1, 1, 1], "SAME")
    assert tape.gradient(y, image).numpy().tolist() == [[[[2.0]]]]


@waits("JacobianTest.test_grad_jacobian_conv")
def test_jacobian_of_the_gradient_of_a_convolution():
    x, kernel = jg.ones((1, 3, 3, 1)), jg.ones((2, 2, 1, 1))
    with jg.GradientTape() as outer:
        outer.watch(x)
        with jg.GradientTape() as inner:
            inner.watch(x)
            y = jg.sum(jg.nn.conv2d(x, kernel, 1, "VALID") ** 2)
        g = inner.gradient(y, x)
    h = outer.jacobian(g, x).numpy().reshape(9, 9)
    np.testing.assert_array_equal(h, h.T)
    assert h[0, 0] == 2.0 and h[4, 4] == 8.0
