"""Reads one TOML file through a pydantic model, and reports all its faults in one error."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from nyx_stream.errors import PolicyError, Problem
from nyx_stream.policy.rules import RuleError, Source
from nyx_stream.policy.toml_source import Key, TomlSource
from nyx_stream.regular_file import open_regular

_Model = TypeVar("_Model", bound=BaseModel)
_Rule = TypeVar("_Rule")

UNION_TAG = "<"
"""The first character of the tags of a union. pydantic puts them in a fault's location, where they aren't keys."""

MAX_FILE_SIZE = 64 * 2**20
"""Bytes of a file; a larger file is refused. This is enough for a million rules."""


class Table(BaseModel):
    """A table of a configuration file: unknown keys are faults, and values aren't converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Returns itself, since it is frozen. Otherwise pydantic would copy every default for every file."""
        return self


class ConfigFile(Generic[_Model]):
    """A file being read. `values` is the validated model; the methods parse its texts and collect faults.

    Faults in shape are collected too; `values` then has the valid part. Call `finish` at the end: it raises `error`
    with all faults. Don't use any value before that.
    """

    def __init__(self, path: str, model: type[_Model], error: type[PolicyError] = PolicyError) -> None:
        self.path = path
        self._error = error
        self._problems: list[Problem] = []
        self._source = TomlSource(os.path.basename(path), _read(path, error), error)
        self.values = self._validate(model)

    @property
    def digest(self) -> str:
        """The BLAKE2b hash of the file's text: 32 bytes, as hexadecimal digits."""
        return hashlib.blake2b(self._source.text.encode(), digest_size=32).hexdigest()

    def rules(self, key: Key, texts: Sequence[str], parse: Callable[[str, Source], _Rule]) -> tuple[_Rule, ...]:
        """Parses each text of the array at `key`; collects a fault for each that does not parse."""
        rules = (self.rule((*key, index), text, parse) for index, text in enumerate(texts))
        return tuple(rule for rule in rules if rule is not None)

    def rule(
        self,
        key: Key,
        text: str,
        parse: Callable[[str, Source], _Rule],
        *,
        why: str | None = None,
        secret: bool = False,
    ) -> _Rule | None:
        """Parses the text at `key`, given for the reason `why`; collects a fault and returns `None` on failure.

        The fault quotes the line, unless `secret` says that the line may hold one.
        """
        try:
            return parse(text, Source(self._source.name, self._source.line(key), why))
        except RuleError as fault:
            problem = self._source.problem(key, fault.reason, fault.offset)
            self._problems.append(replace(problem, excerpt=None) if secret else problem)
            return None

    def bounds(self, key: Key, table: BaseModel, parse: Callable[[str, object], Any]) -> dict[str, Any]:
        """Parses each value that the table at `key` sets; collects a fault for each that does not parse."""
        parsed: dict[str, Any] = {}
        for name, value in table.model_dump(exclude_unset=True).items():
            try:
                parsed[name] = parse(name, value)
            except ValueError as fault:
                self.fault((*key, name), str(fault))
        return parsed

    def fault(self, key: Key, message: str) -> None:
        """Collects a fault at `key`."""
        self._problems.append(self._source.problem(key, message))

    def finish(self) -> None:
        """Raises the file's error if there is any fault."""
        if self._problems:
            raise self._error(self._problems)

    def _validate(self, model: type[_Model]) -> _Model:
        try:
            return model.model_validate(self._source.values)
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_context=False, include_input=False):
                key = tuple(p for p in fault["loc"] if not (isinstance(p, str) and p.startswith(UNION_TAG)))
                name = ".".join(part for part in key if isinstance(part, str))
                message = fault["msg"]
                self.fault(key, f"{name}: {message[:1].lower()}{message[1:]}")
            return _valid_part(model, self._source.values)


def _valid_part(model: type[_Model], values: object) -> _Model:
    """Returns a model of the fields whose shape is right, so that their rules are checked too.

    The other fields have their defaults, or `None` if they are required.
    """
    given = values if isinstance(values, Mapping) else {}
    valid: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Table):
            valid[name] = _valid_part(kind, given.get(name))
        elif name in given:
            with suppress(ValidationError):
                adapter: TypeAdapter[object] = TypeAdapter(field.rebuild_annotation(), config=Table.model_config)
                valid[name] = adapter.validate_python(given[name])
        if field.is_required():
            valid.setdefault(name, None)
    return model.model_construct(**valid)


def _read(path: str, error: type[PolicyError]) -> str:
    # A device, a pipe or a growing file must not block the host or fill its memory.
    with open_regular(path) as file:
        data = file.read(MAX_FILE_SIZE + 1)
    name = os.path.basename(path)
    if len(data) > MAX_FILE_SIZE:
        raise error([Problem(f"larger than {MAX_FILE_SIZE} bytes", where=name)])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        raise error([Problem("not UTF-8", where=name, line=line)]) from None
