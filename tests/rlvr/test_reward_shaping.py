"""DAPO's soft overlong penalty."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr.rewards import overlong_penalty


def test_the_papers_ramp():
    """L_max 20480, buffer 4096: free up to 16384 tokens, -1 at the limit, linear between."""
    assert [overlong_penalty(n, 20480, 4096) for n in (0, 16384, 18432, 20480)] == [0.0, 0.0, -0.5, -1.0]


@given(st.integers(0, 300), st.integers(1, 200), st.integers(0, 199), st.floats(0, 5))
def test_it_is_never_a_reward_and_never_beyond_its_factor(tokens, limit, buffer, factor):
    found = overlong_penalty(tokens, limit, buffer, factor)
    assert -factor <= found <= 0.0
    if tokens <= limit - buffer or buffer == 0:
        assert found == 0.0


def test_a_longer_answer_never_costs_less():
    penalties = [overlong_penalty(n, 100, 40, 0.5) for n in range(120)]
    assert penalties == sorted(penalties, reverse=True) and penalties[-1] == pytest.approx(-0.5)
