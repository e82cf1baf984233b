"""The registry of capabilities: each row resolves, implements its protocol, and imports only its own side."""

import inspect
import subprocess
import sys
from typing import get_type_hints

import pytest

from nyx_stream.isolation.registry import CAPABILITIES, REGISTRY, resolve
from nyx_stream.isolation.remote.host.broker import Handler
from nyx_stream.policy.limits import TERMS


def members(protocol: type) -> set[str]:
    """The public methods of a protocol."""
    return {name for name, value in vars(protocol).items() if not name.startswith("_") and callable(value)}


@pytest.mark.parametrize("name", REGISTRY)
def test_every_reference_of_a_row_resolves(name: str) -> None:
    """To something callable; the host binding is a `Handler`."""
    row = REGISTRY[name]
    references = [row.host_binding, row.worker_binding, *([row.facade] if row.facade else [])]
    assert all(callable(resolve(reference)) for reference in references)
    assert members(Handler) <= set(dir(resolve(row.host_binding)))


@pytest.mark.parametrize("name", [name for name, row in REGISTRY.items() if row.facade is not None])
def test_a_worker_binding_implements_the_protocol_of_its_facade(name: str) -> None:
    """Each method of the protocol is there, with the same parameters."""
    row = REGISTRY[name]
    facade, binding = resolve(row.facade), resolve(row.worker_binding)
    protocol = get_type_hints(facade.__init__)["service"]
    assert members(protocol)
    for method in members(protocol):
        ours, theirs = (inspect.signature(getattr(owner, method)) for owner in (binding, protocol))
        assert list(ours.parameters) == list(theirs.parameters), method


def test_leased_capabilities_have_terms() -> None:
    """Every leased capability has an entry in the table of terms, and no other has."""
    assert set(TERMS) == set(CAPABILITIES)


@pytest.mark.parametrize(("side", "other"), [("host", "worker"), ("worker", "host")])
def test_the_bindings_of_one_side_import_nothing_of_the_other(side: str, other: str) -> None:
    """Also not through the registry, whose references are resolved when they are used."""
    code = f"""if True:
        import sys
        from nyx_stream.isolation.registry import REGISTRY, resolve
        for row in REGISTRY.values():
            resolve(row.{side}_binding)
        print([name for name in sys.modules if name.startswith("nyx_stream.isolation.remote.{other}")])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_registry_imports_no_library_of_a_facade() -> None:
    """A plugin pays for the capabilities that it uses."""
    code = """if True:
        import sys
        import nyx_stream.isolation.registry
        print([name for name in ("httpx", "aiofiles", "anyio", "pydantic") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
