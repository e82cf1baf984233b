"""The public names. Everything else may change in any version."""

import importlib

import pytest

EXPORTED = {
    "nyx_core.sandbox": """
        Confinement LayerReport LayerState Limit LimitReport Network ResourceLimits RunAs SandboxError SandboxPolicy
        SandboxReport SandboxStatus WitnessResult apply_policy confine prepare probe""",
    "nyx_stream": "Handle Plugin PluginHost export",
    "nyx_stream.audit": """
        AuditEvent AuditLog AuditSink Fault Fsync LoggingSink Verification WhenFull fan_out read_log verify""",
    "nyx_stream.capabilities.files": "Files GuardedFiles",
    "nyx_stream.capabilities.http": "GuardedClient Network",
    "nyx_stream.guard": "Decision NarrowedGuard PathVerdict RequestVerdict SandboxGuard path_text",
    "nyx_stream.host": """
        Answer ApprovalStatus Call Handle Latency LeaseStatus Observation Observer PluginHost PluginMetrics PluginStats
        PluginStatus Question State Waiting discover find read_config""",
    "nyx_stream.plugin_sandbox": """
        Decision FilesystemDenied NetworkDenied SandboxDenied SandboxGuard SandboxPolicy""",
    "nyx_stream.policy": """
        NO_PLACES Approval ConnectRule Credential Grant LeaseTerms Limits Manifest Mode PathRule Places RequestRule
        SandboxPolicy Source""",
    "nyx_stream.testing": "RunningPlugin run_plugin",
}


@pytest.mark.parametrize("package", EXPORTED)
def test_a_package_exports_exactly_its_public_names(package: str) -> None:
    """`__all__` lists the names, each of them can be imported, and an unknown name raises."""
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(EXPORTED[package].split())
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name
