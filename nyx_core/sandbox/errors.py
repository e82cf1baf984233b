"""The one error of the OS layer. Knows the report it carries, and nothing of how a layer works."""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` takes an eighth of what importing the doorway does
if TYPE_CHECKING:
    from nyx_core.sandbox.report import SandboxReport


class SandboxError(RuntimeError):
    """A required layer could not be applied, a witness got through, or less was asked for than is in force.

    The process may be partly confined when this is raised, never less than before. It is unfit: end it.

    Attributes:
        report: what was reached, layer by layer; `None` when nothing was tried.
        layer: name of the layer that refused, or `None` when no single layer is at fault.
    """

    def __init__(self, message: str, *, report: SandboxReport | None = None, layer: str | None = None) -> None:
        self.report = report
        self.layer = layer
        super().__init__(message)
