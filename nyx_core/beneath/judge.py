"""What an operation lets its caller see before it acts."""

from collections.abc import Callable

Judge = Callable[[str, str], None]
"""`(below, absolute)`: the canonical place of what was reached, as text below the root (`""` is the root) and
as the absolute path that the system gives it. Raises to refuse. It is called before anything changes: before
a file is created, cut, renamed or removed, or its descriptor handed out."""
