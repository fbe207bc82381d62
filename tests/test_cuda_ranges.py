"""What is known of integers without looking at them: it holds for what the references of the table compute."""

from __future__ import annotations

import numpy as np
import pytest

from jitgrad.core.primitive import Kind
from jitgrad.execute.cuda import memory, ranges
from table import ENTRIES, cases, form_of, ident, samples

SAYING = [p for p in ENTRIES if p.indexes is not None or p.kind in (Kind.MOVE, Kind.PLACE)]


@pytest.mark.parametrize(("prim", "dtype"), cases(SAYING), ids=ident)
def test_integers_lie_where_the_table_says(prim, dtype, rng):
    for arrays, params in samples(prim, dtype, rng):
        given = [ranges.Known(span) if (span := memory.span_of(np.asarray(a))) else None for a in arrays]
        known = ranges.of_result(form_of(prim, arrays, params), given)
        found = prim.ref(*arrays, **params)
        if np.asarray(found).dtype.kind == "i" and known is not None and np.size(found):
            assert ranges.inside(memory.span_of(np.asarray(found)), known.span), (known, found)


def test_spans_are_known_of_positions_and_of_what_is_picked(rng):
    """Else the test above is one of nothing."""
    labels = rng.integers(3, 9, (4, 5))
    spans = {}
    for name, arrays, params in (("argmax", (labels.astype(float),), {"axis": 1}), ("reshape", (labels,), {"shape": (20,)}),
                                 ("gather", (labels, np.array([0, -1])), {"axis": 0, "rows": 0}),
                                 ("embed", (labels,), {"shape": (6, 5), "spans": ((1, 4, 1), (0, 5, 1))}),
                                 ("where", (labels > 4, labels, np.array(2)), {}), ("add", (labels, labels), {}),
                                 ("cast", (labels,), {"dtype": "int32"}), ("cast", (labels > 4,), {"dtype": "int64"})):
        prim = next(p for p in ENTRIES if p.name == name)
        given = [ranges.Known(span) if (span := memory.span_of(a)) else None for a in arrays]
        known = ranges.of_result(form_of(prim, arrays, params), given)
        spans.setdefault(name, []).append(known and known.span)
    assert spans == {"argmax": [(0, 5)], "reshape": [(3, 9)], "gather": [(3, 9)], "embed": [(0, 9)], "where": [(2, 9)],
                     "add": [None], "cast": [(3, 9), (0, 2)]}


def test_needs_of_several_indices_come_together():
    x, y = (ranges.Known(None, frozenset([i])) for i in (0, 1))
    both = ranges.Known((0, 4), frozenset([0, 1]))
    assert ranges.needs([(x, (-5, 5)), (both, (0, 7)), (y, (-9, 9))]) == {0: (0, 5), 1: (0, 7)}
    assert ranges.needs([(x, (-5, 5)), (both, (0, 3))]) is None
    assert ranges.needs([(None, (0, 3))]) is None and ranges.needs([]) == {}
