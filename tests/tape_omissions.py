"""Which tests of TensorFlow's backprop_test.py are expressed here, which never will be, and which wait.

A test of BackpropTest goes by its name, one of the other classes by Class.name. `test_tape_omissions.py` checks that
every name is in exactly one of the three parts and that the expressed and waiting ones have a test.
"""

from __future__ import annotations

import functools

import pytest

NAMES = tuple("""
testAggregateGradients testAggregateGradientsWithTensor testImplicitGradWithResourceVariable testImplicitGradOrdering
testNoOpBehaviorConsistent testResourceHandleOutputWithoutHandleData testGradientInsideLoop testWhereGradient
testTwoTargets testCustomGradientEmptyError test_stop_gradient_hides_downstream_ops testOutputGradUsedInComputation
testDy testGradientInteger testErrors testGradientsFunctionInCustomGradient testImplicitGradOverEmbeddingLookup
testFunctionIndexedSlicesGradient

testTapeNoOpGradient testTapeIdentityGradientIsIdentity testTapeGradientMultiTargetOneIsSource
testTapeNoOpGradientWithMultiTargetAllSource testTapeNoOpGradientWithMultiTargetMultiSource testTapeGradientStringTarget
testTapeNoOpGradientStringSourceAndTarget testTapeNoOpGradientWithMultiTargetMultiSourceIncludeString
testTapeNoOpOnVariableIsIdentity testTapeNoOpGradient2By2 testTapeNoOpGradientMultiTarget2By2

testTapeStopRecording testTapeStopStartRecording testTapeReset testPythonMax testAutomaticWatchedVariables
testExplicitWatchedVariables testGradientWithinTapeBlock testNestedSelfContexts testGradientTapeReEnterContext
testWatchingIsTapeLocal testSelectivelyWatchVariables testWatchBadThing testWatchComposite
testWatchedVariablesAfterNonPersistentGradientCall testWatchedVariablesOnlyHasVariablesFromLastTape
testWatchedVariablesRespectReset testExceptionSafety

testGradientNone testSecondGrad testMakeVJP testPersistentMakeVJP testGradGrad testGradGradExp testStopGradient
testArgmax testGradientTape testHigherOrderGradient testPersistentNestedTape testNestedGradients testPersistentTape

testGPU testGPUImplicitGrad testCPU testTensorCopyGPU2CPU2GPU testTensorCopyCPU2GPU2CPU

testEmptyParams testUnconnectedNone testGradientTapeRepeatedSource testPersistentGradientTapeRepeatedSource
testGradientTapeStructure testGadientTapeCalledOnConstantTarget testGradientTapeWithCond testGradientTapeWithWhileLoop
testGradientTapeGradientCalledMultipleTimes testGradientTapeJacobianCalledMultipleTimes
testGradientTapeBatchJacobianCalledMultipleTimes testJacobianInsideGradientTapeScope
testBatchJacobianInsideGradientTapeScope testBatchJacobianParallelIterations testGradientTapeVariable
testUnconnectedGradientsDefault testUnconnectedGradientsZeros testUnconnectedGradientsVariablesZeros
testUnknownUnconnectedGradientsValueGiven testUnconnectedGradientsNestedDefunZeros testInvalidRecordOperationMessage
testEmptyParamsForValueAndGradFunction testNonEmptyParamsForValueAndGradFunction

testGetAttrType testGetAttrList testMakeAttrType testMakeAttrTypeList testMakeAttrString testMakeAttrStringList
testMakeAttrShape testMakeAttrShapeList

testMulType testArgsGradientFunction testPartial testReturnSameThing testMultiValueConvertToTensor testOutput
testMultiValuePreservesIfNotDiffedAgainst testSameObjectForMultipleArguments
testImplicitGradientsCustomGradientAndCachedVariableValue testJacobianCustomGradient testCustomGradient
testCustomGradientIdentity testDifferentiatingFunctionThatReturnsNone testZerosCacheDoesntLeakAcrossGraphs
testDifferentiatingScalarCache testVariablesAndConstantsProduceTheSameGradients testUnknownShapes
testCustomGradientInEagerAndGraph testOverrideSecondOrderWithCustomGradient testCustomGradientForwardprop
testMaxPooling3DGradient testNameScope testRecomputeGradWithDifferentShape
testRecomputeGradWithNestedFunctionAndWhileLoop

JacobianTest.testPfor JacobianTest.testWhileLoop JacobianTest.testPforDefun JacobianTest.testWhileLoopDefun
JacobianTest.testPersistentTape JacobianTest.testPforException JacobianTest.test_parallel_iterations
JacobianTest.test_nested_jacobian JacobianTest.test_nested_batch_jacobian_foldl JacobianTest.test_grad_jacobian_conv
JacobianTest.test_indexed_slices JacobianTest.test_foldl_partial_function JacobianTest.test_foldl_pure_function
JacobianTest.test_cond_func_grad_jacobian JacobianTest.test_empty_tensor_consistent_jacobian

BatchJacobianTest.testPfor BatchJacobianTest.testWhileLoop BatchJacobianTest.testPforDefun
BatchJacobianTest.testWhileLoopDefun BatchJacobianTest.testPersistentTape BatchJacobianTest.testBadShape
BatchJacobianTest.testBadInputRank BatchJacobianTest.testBadOutputRank BatchJacobianTest.test_parallel_iterations
BatchJacobianTest.test_degenerate_shape BatchJacobianTest.test_zeros_type_correct BatchJacobianTest.test_strided_slice

AggregateIndexedSlicesGradientsTest.testNoGradients AggregateIndexedSlicesGradientsTest.testOneGradient
AggregateIndexedSlicesGradientsTest.testMultipleGradients
AggregateIndexedSlicesGradientsTest.testMultipleGradientsWithNones
AggregateIndexedSlicesGradientsTest.testMixedTensorAndIndexedSlices
""".split())

_ATTRIBUTES = "TensorFlow plumbing: types and attributes of graph ops"
_SLICES = "a composite tensor: gradients are dense here, so there are no IndexedSlices to add up"

NEVER = {
    "testTapeGradientStringTarget": "strings",
    "testTapeNoOpGradientStringSourceAndTarget": "strings",
    "testTapeNoOpGradientWithMultiTargetMultiSourceIncludeString": "strings",
    "testWatchComposite": "a sparse tensor",
    "testNameScope": "name scopes",
    "testMaxPooling3DGradient": "3-D pooling",
    "testResourceHandleOutputWithoutHandleData": "TensorFlow plumbing: handles of resource variables",
    "testGetAttrType": _ATTRIBUTES,
    "testGetAttrList": _ATTRIBUTES,
    "testMakeAttrType": _ATTRIBUTES,
    "testMakeAttrTypeList": _ATTRIBUTES,
    "testMakeAttrString": _ATTRIBUTES,
    "testMakeAttrStringList": _ATTRIBUTES,
    "testMakeAttrShape": _ATTRIBUTES,
    "testMakeAttrShapeList": _ATTRIBUTES,
    "JacobianTest.testPforException": "TensorFlow plumbing: a graph op without a converter for its parallel loop",
    "AggregateIndexedSlicesGradientsTest.testNoGradients": _SLICES,
    "AggregateIndexedSlicesGradientsTest.testOneGradient": _SLICES,
    "AggregateIndexedSlicesGradientsTest.testMultipleGradients": _SLICES,
    "AggregateIndexedSlicesGradientsTest.testMultipleGradientsWithNones": _SLICES,
    "AggregateIndexedSlicesGradientsTest.testMixedTensorAndIndexedSlices": _SLICES,
}

# What each waits for, as the attribute that does not exist yet.
WAITS = {
    "testMultiValuePreservesIfNotDiffedAgainst": "jg.nn.conv2d",
    "JacobianTest.test_grad_jacobian_conv": "jg.nn.conv2d",
}


def expresses(*names):
    """Say which of TensorFlow's tests a test expresses."""
    unknown = set(names) - set(NAMES)
    assert not unknown, f"not tests of TensorFlow's: {sorted(unknown)}"
    return lambda test: test


class Waiting(Exception):
    """What the test needs is not there yet."""


def awaiting(what):
    """A strict xfail: the test must fail because ``what`` (a dotted name) does not exist, and for nothing else."""
    missing = what.rpartition(".")[2]

    def decorate(test):
        @functools.wraps(test)
        def waiting(*args, **kwargs):
            try:
                test(*args, **kwargs)
            except AttributeError as error:
                if f"has no attribute {missing!r}" in str(error):
                    raise Waiting(what) from None
                raise
        return pytest.mark.xfail(strict=True, raises=Waiting, reason=f"waits for {what}")(waiting)
    return decorate


def waits(name):
    """A test of TensorFlow's that waits for what `WAITS` says."""
    return awaiting(WAITS[name])
