"""Reading one TOML file through a pydantic model, with every fault of it in one error. Knows no particular file."""

import hashlib
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from nyx_stream.errors import PolicyError, Problem
from nyx_stream.policy.limits import Limits
from nyx_stream.policy.rule import RuleError, Source
from nyx_stream.policy.toml_source import Key, TomlSource, syntax_problem
from nyx_stream.regular_file import open_regular

_Model = TypeVar("_Model", bound=BaseModel)
_Rule = TypeVar("_Rule")

TAGGED = "<"
"""What the tags of a union begin with: in the place of a fault they stand for no key, and are left out."""

LARGEST = 64 * 2**20
"""Bytes of a file that are read; a larger one is refused. A million rules fit."""


class Table(BaseModel):
    """A table of a configuration file: unknown keys are faults, and no value is converted in silence."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Itself: it is frozen. Otherwise pydantic would copy every default for every file."""
        return self


class ConfigFile(Generic[_Model]):
    """A file being read: `values` is the validated model, the methods turn its texts into values and note faults.

    Where the shape is at fault, that is noted too, and `values` has what is left. Call `finish` at the end; it raises
    `error` with every fault noted on the way, and nothing that was read may be used before.
    """

    def __init__(self, path: str, model: type[_Model], error: type[PolicyError] = PolicyError) -> None:
        self.path = path
        self._error = error
        self._problems: list[Problem] = []
        text = _read(path, error)
        try:
            self._source = TomlSource.parse(os.path.basename(path), text)
        except tomllib.TOMLDecodeError as fault:
            raise error([syntax_problem(os.path.basename(path), text, fault)]) from None
        self.values = self._validate(model)

    @property
    def digest(self) -> str:
        """The BLAKE2b hash of what was read: 32 bytes, as hexadecimal digits."""
        return hashlib.blake2b(self._source.text.encode(), digest_size=32).hexdigest()

    def rules(self, key: Key, texts: Sequence[str], parse: Callable[[str, Source], _Rule]) -> tuple[_Rule, ...]:
        """Parses each text of the array at `key`; notes a fault with its line and caret where one does not parse."""
        rules = (self.rule((*key, index), text, parse) for index, text in enumerate(texts))
        return tuple(rule for rule in rules if rule is not None)

    def rule(self, key: Key, text: str, parse: Callable[[str, Source], _Rule], *, shown: bool = True) -> _Rule | None:
        """Parses the text at `key`; notes a fault and returns `None` where it does not parse.

        The line is printed with the fault unless `shown` says that it may be no one's to read.
        """
        try:
            return parse(text, Source(self._source.name, self._source.line(key)))
        except RuleError as fault:
            problem = self._source.problem(key, fault.reason, fault.offset)
            self._problems.append(problem if shown else replace(problem, excerpt=None))
            return None

    def limits(self, key: Key, values: BaseModel) -> Limits:
        """Reads the limits table at `key`; what it does not name keeps its default."""
        limits = Limits()
        for name, value in values.model_dump(exclude_unset=True).items():
            try:
                limits = limits.with_values(**{name: value})
            except ValueError as fault:
                self._problems.append(self._source.problem((*key, name), str(fault)))
        return limits

    def fault(self, key: Key, message: str) -> None:
        """Notes a fault at `key`."""
        self._problems.append(self._source.problem(key, message))

    def finish(self) -> None:
        """Raises the file's error if any fault was noted."""
        if self._problems:
            raise self._error(self._problems)

    def _validate(self, model: type[_Model]) -> _Model:
        try:
            return model.model_validate(self._source.values)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            keys = [_key(fault["loc"]) for fault in faults]
            self._problems += [
                self._source.problem(key, _message(key, fault["msg"])) for key, fault in zip(keys, faults, strict=True)
            ]
            return _sound(model, self._source.values)


def _sound(model: type[_Model], values: object) -> _Model:
    """Returns what is right in shape, so that its rules are read as well: the rest has its default, or is `None`."""
    given = values if isinstance(values, Mapping) else {}
    sound: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Table):
            sound[name] = _sound(kind, given.get(name))
        elif name in given:
            with suppress(ValidationError):
                adapter: TypeAdapter[object] = TypeAdapter(field.rebuild_annotation(), config=Table.model_config)
                sound[name] = adapter.validate_python(given[name])
        if field.is_required():
            sound.setdefault(name, None)
    return model.model_construct(**sound)


def _read(path: str, error: type[PolicyError]) -> str:
    # What is a device or a pipe, or grows while it is read, must not hang or fill the host.
    with open_regular(path) as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise error([Problem(f"larger than {LARGEST} bytes", where=os.path.basename(path))])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        raise error([Problem("not UTF-8", where=os.path.basename(path), line=line)]) from None


def _key(location: Sequence[str | int]) -> Key:
    return tuple(part for part in location if not (isinstance(part, str) and part.startswith(TAGGED)))


def _message(location: Sequence[str | int], message: str) -> str:
    name = ".".join(str(part) for part in location if isinstance(part, str))
    return f"{name}: {message[:1].lower()}{message[1:]}"
