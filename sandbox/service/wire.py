"""The JSON form of tests, submissions and judgements, derived from the dataclasses themselves.

Text that is not UTF-8 travels as Python keeps it, as escaped lone surrogates, and comes back to the byte.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
from collections.abc import Sequence
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from sandbox.cases import Limits, TestCase
from sandbox.submission import Submission
from sandbox.verdicts import Judgement

T = TypeVar("T")

HASHED = "sha256-"  # names of test sets that are told by their content


_LONGEST_NAME = 200


class WireError(ValueError):
    """A message that does not have the form it should; the text names the place, what is wrong and what is right."""


@dataclasses.dataclass(frozen=True, slots=True)
class TestSet:
    """Tests with what they are judged under where a submission does not say otherwise; fields as in `Submission`."""

    __test__ = False  # not a pytest class

    tests: tuple[TestCase, ...]
    limits: Limits = dataclasses.field(default_factory=Limits)
    checker: str = "tokens"
    input_file: str = ""
    output_file: str = ""
    interactor: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """A program for a test set the service holds; what is None is taken from the test set."""

    tests: str  # name of the test set
    code: str
    language: str = "python"
    limits: Limits | None = None
    checker: str | None = None
    input_file: str | None = None
    output_file: str | None = None
    interactor: str | None = None

    @classmethod
    def of(cls, submission: Submission, name: str) -> Order:
        """The order that asks for exactly `submission`, whose tests the service holds under `name`."""
        said = {field: getattr(submission, field) for field in _OF_A_SUBMISSION}
        return cls(name, submission.code, submission.language, **said)

    def submission(self, held: TestSet) -> Submission:
        meant = {field: getattr(self, field) for field in _OF_A_SUBMISSION}
        for field, value in meant.items():
            if value is None:
                meant[field] = getattr(held, field)
        return Submission(self.code, held.tests, self.language, **meant)


# what a submission says besides the program and its tests
_OF_A_SUBMISSION = tuple(
    field.name for field in dataclasses.fields(Submission) if field.name not in ("code", "tests", "language")
)


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """What `POST /judge` takes. `job` names the batch: sent again under the same name, it is not run again."""

    job: str
    submissions: tuple[Order, ...]
    stop: str = "first_failure"
    keep_output: bool = False

    def check(self) -> None:
        """WireError for a batch that asks for nothing, or whose name cannot be one."""
        if not self.submissions:
            raise WireError("submissions: at least one is needed")
        check_name("job", self.job)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One line of the reply to `POST /judge`."""

    index: int
    judgement: Judgement


def encode(value: object) -> bytes:
    """`value`, a dataclass or plain data, as JSON."""
    return json.dumps(plain(value), separators=(",", ":")).encode("ascii")


def decode(kind: type[T], data: bytes | str) -> T:
    """The `kind` that `data` holds. WireError when it does not."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {error}") from None
    return cast(T, build(kind, value, ""))


def check_name(what: str, name: str) -> None:
    """WireError for a name that is empty, long or not plain text."""
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        shown = repr(name[:60]) + ("..." if len(name) > 60 else "")
        raise WireError(f"{what} {shown}: expected 1 to {_LONGEST_NAME} printable characters")


def name_of(tests: bytes) -> str:
    """The name of an encoded test set that tells its content."""
    return HASHED + hashlib.sha256(tests).hexdigest()


def plain(value: object) -> Any:
    """`value` as JSON data: dataclasses as objects without the fields that have their default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(item) for name, item in _said(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _said(value: Any) -> list[tuple[str, object]]:
    said = []
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        if default is dataclasses.MISSING or item != default or type(item) is not type(default):
            said.append((field.name, item))
    return said


def build(kind: Any, value: Any, where: str) -> Any:
    """`value`, JSON data, as a `kind`; WireError naming the place `where` it does not fit."""
    if kind is Any:
        return value
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _build_union(get_args(kind), value, where)
    if origin in (tuple, list, Sequence):
        if not isinstance(value, list):
            raise _unfit(where, "a list", value)
        item = get_args(kind)[0]
        built = [build(item, element, f"{where}[{number}]") for number, element in enumerate(value)]
        return built if origin is list else tuple(built)
    if origin is dict:
        if not isinstance(value, dict):
            raise _unfit(where, "an object", value)
        return {key: build(get_args(kind)[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(value)
        except ValueError:
            raise _unfit(where, f"one of {', '.join(str(member.value) for member in kind)}", value) from None
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise _unfit(where, _SAID.get(kind, str(kind)), value)
    return value


_SAID = {str: "a string", int: "an integer", float: "a number", bool: "true or false", type(None): "null"}


def _build_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    for kind in others[:-1]:
        try:
            return build(kind, value, where)
        except WireError:
            continue
    return build(others[-1], value, where)


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _unfit(where, "an object", value)
    hints = _hints(kind)
    unknown = value.keys() - hints.keys()
    if unknown:
        place = f"{where}: " if where else ""
        raise WireError(f"{place}unknown key {sorted(unknown)[0]!r}; known: {', '.join(hints)}")
    given = {name: build(hints[name], item, f"{where}.{name}".lstrip(".")) for name, item in value.items()}
    try:
        return kind(**given)
    except TypeError:
        missing = [
            field.name
            for field in dataclasses.fields(kind)
            if field.name not in given
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ]
        raise WireError(f"{where}: {missing[0]!r} is missing".lstrip(": ")) from None


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _unfit(where: str, wanted: str, value: object) -> WireError:
    shown = json.dumps(value)
    return WireError(f"{where or 'message'}: expected {wanted}, got {shown[:60]}{'...' if len(shown) > 60 else ''}")
