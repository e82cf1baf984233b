"""What the machine that the tests run on can enforce."""

from nyx_core.sandbox import LayerState, probe


def missing() -> str:
    """What this machine lacks to seal a process, or nothing."""
    report = probe()
    for name in ("landlock", "seccomp"):
        layer = report.layer(name)
        if layer is None:
            return f"no {name} on {report.platform}"
        if layer.state is not LayerState.ACTIVE:
            return f"{name}: {layer.reason}"
    return ""
