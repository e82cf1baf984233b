"""Draws a report as text for a person. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nyx_core.sandbox.report import LimitReport, SandboxReport


def draw(report: SandboxReport) -> str:
    """One line per layer, limit and witness; what is missing is followed by what would provide it."""
    return "\n".join(_lines(report))


def _lines(report: SandboxReport) -> Iterator[str]:
    facts = "".join(f", {name.replace('_', ' ')} {value}" for name, value in report.facts)
    yield f"{report.platform} {report.kernel} {report.machine}{facts}".rstrip()
    if report.policy_hash:
        yield f"policy {report.policy or 'custom'} {report.policy_hash[:12]}{', in force already' * report.repeated}"
    width = max((len(layer.name) for layer in report.layers), default=0)
    for layer in report.layers:
        yield f"  {layer.name:{width}}  {layer.state.value:11}  {layer.reason}"
        if layer.remedy:
            yield f"  {'':{width}}  {'':11}  needs: {layer.remedy}"
    if not report.layers:
        yield "  no layers for this platform: only the guard in Python decides"
    for limit in report.limits:
        yield _limit(limit)
    for result in report.witness:
        verdict = "refused" if result.refused else "GOT THROUGH"
        yield f"  witness  {result.axis}: {result.act}: {verdict}, {result.answer}"


def _limit(limit: LimitReport) -> str:
    asked = f"{limit.asked_soft}/{limit.asked_hard}"
    note = f" ({limit.note})" if limit.note else ""
    return f"  limit    {limit.name}: {limit.soft}/{limit.hard} {limit.unit}, asked {asked}{note}"
