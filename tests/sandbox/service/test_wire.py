"""What goes over the wire comes back as it was, and what does not fit is refused by name."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import CaseResult, Judgement, Limits, Submission, TestCase, Verdict
from sandbox.service import wire
from sandbox.service.wire import Answer, Batch, Order, TestSet, WireError

# every text the judge knows: what UTF-8 can say, and bytes that are none, kept as lone surrogates
texts = st.binary(max_size=20).map(lambda data: data.decode("utf-8", "surrogateescape")) | st.text(max_size=20)
numbers = st.floats(min_value=0.001, max_value=1e6)
limits = st.builds(Limits, numbers, st.none() | numbers, st.integers(1, 10**6), numbers, st.booleans())
tests = st.builds(TestCase, texts, texts, st.none() | texts, numbers, texts)
test_sets = st.builds(TestSet, st.lists(tests, max_size=4).map(tuple), limits, texts)
orders = st.builds(Order, texts, texts, texts, st.none() | limits, st.none() | texts)
batches = st.builds(Batch, texts, st.lists(orders, max_size=4).map(tuple), texts, st.booleans())
cases = st.builds(CaseResult, st.sampled_from(Verdict), numbers, numbers, numbers, texts, st.none() | texts)
judgements = st.builds(Judgement, st.sampled_from(Verdict), st.lists(cases, max_size=4).map(tuple), texts, texts)
answers = st.builds(Answer, st.integers(0, 10**9), judgements)


@settings(max_examples=60, deadline=None)
@given(test_sets | batches | answers)
def test_a_message_survives_the_wire(message: object) -> None:
    assert wire.decode(type(message), wire.encode(message)) == message


@settings(max_examples=40, deadline=None)
@given(test_sets, test_sets)
def test_test_sets_have_one_name_exactly_when_they_are_equal(one: TestSet, other: TestSet) -> None:
    assert (wire.name_of(wire.encode(one)) == wire.name_of(wire.encode(other))) == (one == other)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"submissions": []}', "'job' is missing"),
        ('{"job": "a", "submissions": [], "stopp": 1}', "unknown key 'stopp'; known: job, submissions, stop"),
        ('{"job": "a", "submissions": {}}', "submissions: expected a list"),
        ('{"job": "a", "submissions": [{"tests": "t", "code": 1}]}', "submissions[0].code: expected a string, got 1"),
        (
            '{"job": "a", "submissions": [{"tests": "t", "code": "", "limits": {"cpu_s": "2"}}]}',
            'submissions[0].limits.cpu_s: expected a number, got "2"',
        ),
        ('{"job": "a", "submissions": [{"tests": "t", "code": "", "limits": {"memory_mb": 1.5}}]}', "an integer"),
        ('{"job": "a", "submissions": [], "keep_output": 1}', "keep_output: expected true or false"),
    ],
)
def test_a_message_that_does_not_fit_is_refused_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(WireError) as refused:
        wire.decode(Batch, text)
    assert complaint in str(refused.value)


def test_an_order_says_all_that_a_submission_says() -> None:
    """Fails when a field is added to submissions that the wire does not carry."""
    names = {field.name for field in dataclasses.fields(Submission)}
    assert {field.name for field in dataclasses.fields(Order)} == names
    assert {field.name for field in dataclasses.fields(TestSet)} == names - {"code", "language"}
    submission = Submission("code", (TestCase("1", "2"),), "c", Limits(1.0), "exact", "in.txt", "out.txt", "python:1")
    order = wire.decode(Order, wire.encode(Order.of(submission, "name")))
    assert order.submission(TestSet(submission.tests)) == submission
    bare = Order("name", "code", "c").submission(TestSet(submission.tests, Limits(1.0), "exact"))
    assert (bare.limits, bare.checker) == (Limits(1.0), "exact")
