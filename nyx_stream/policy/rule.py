"""What the three kinds of rule share: where they were written, and how a fault in one is told."""

from dataclasses import dataclass


class RuleError(ValueError):
    """A rule's text is wrong. `offset` is the place of the fault in `text`, from 0."""

    def __init__(self, text: str, reason: str, offset: int = 0) -> None:
        self.text = text
        self.reason = reason
        self.offset = offset
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a rule stands: a file (or the name of a builder call), a line from 1, and the reason given there."""

    where: str
    line: int | None = None
    why: str | None = None

    def __str__(self) -> str:
        return self.where if self.line is None else f"{self.where}:{self.line}"


def parse_env(name: str, source: Source | None = None) -> str:  # noqa: ARG001  # the signature of every rule's parser
    """Returns the name of an environment variable; raises `RuleError`."""
    if not name.isascii() or not name.isidentifier():
        raise RuleError(name, "the name of an environment variable has letters, digits and underscores")
    return name
