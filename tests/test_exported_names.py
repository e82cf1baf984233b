"""The exported names of every public package, in one table.

Adding, removing or renaming a public name is a decision: it changes this table too.
"""

import importlib
import pkgutil

import pytest

import nyx_core
import nyx_stream

EXPORTED = {
    "nyx_core.sandbox": """
        Confinement LayerReport LayerState Limit LimitReport Network ResourceLimits RunAs SandboxError SandboxPolicy
        SandboxReport SandboxStatus WitnessResult apply_policy confine prepare probe
    """,
    "nyx_stream": "Handle Plugin PluginHost __version__ export",
    "nyx_stream.audit": """
        AuditEvent AuditLog AuditSink Fault Fsync LoggingSink Verification WhenFull fan_out read_log verify
    """,
    "nyx_stream.capabilities.files": "Files GuardedFiles",
    "nyx_stream.capabilities.http": "GuardedClient NetworkBackend",
    "nyx_stream.errors": """
        AuditError ContentChanged FilesystemDenied InvalidArguments InvalidResult LimitExceeded LockError ManifestError
        NetworkDenied NyxError PluginBusy PluginCallError PluginCrashed PluginError PluginLoadError PluginNotFound
        PluginSetupError PluginStateError PluginTimeout PolicyError Problem Revoked SandboxDenied TripwireDenied
        UnknownMethod UpdateWaiting WatchUnavailable
    """,
    "nyx_stream.guard": "Decision NarrowedGuard PathVerdict RequestVerdict SandboxGuard path_text",
    "nyx_stream.host": """
        Answer ApprovalStatus Call Handle Latency LeaseStatus Observation Observer PluginHost PluginMetrics PluginStats
        PendingUpdate PluginStatus Question State discover find read_config
    """,
    "nyx_stream.observe.otel": "Telemetry",
    "nyx_stream.observe.prometheus": "CONTENT_TYPE PluginCollector prometheus_text",
    "nyx_stream.plugin_sandbox": """
        Decision FilesystemDenied NetworkDenied SandboxDenied SandboxGuard SandboxPolicy
    """,
    "nyx_stream.policy": """
        Approval ConnectRule Credential Grant GrantRow LeaseTerms Limits Manifest Mode NO_PLACES OptionalPermission
        PathRule Places RequestRule RuleError SandboxPolicy Source
    """,
    "nyx_stream.testing": "RunningPlugin run_plugin",
}
NEEDED = {"nyx_stream.observe.otel": "opentelemetry", "nyx_stream.observe.prometheus": "prometheus_client"}
PRIVATE = ("nyx_core.beneath", "nyx_stream.cli", "nyx_stream.isolation")
"""Packages whose exported names are for other packages of Nyx only."""


@pytest.mark.parametrize("name", EXPORTED)
def test_a_public_package_exports_the_names_of_the_table(name: str) -> None:
    """`__all__` lists exactly these names, each of them once, and each resolves, including those imported on use."""
    if name in NEEDED:
        pytest.importorskip(NEEDED[name])
    package = importlib.import_module(name)
    assert sorted(package.__all__) == sorted(EXPORTED[name].split())
    for exported in package.__all__:
        assert getattr(package, exported) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name


def test_every_package_with_exports_is_in_the_table() -> None:
    """A package that exports names is public, unless it is listed as private."""
    names = {
        module.name
        for root in (nyx_core, nyx_stream)
        for module in pkgutil.walk_packages(root.__path__, f"{root.__name__}.")
        if module.ispkg and not module.name.startswith(PRIVATE) and module.name not in NEEDED
    }
    assert {name for name in names if hasattr(importlib.import_module(name), "__all__")} <= set(EXPORTED)
