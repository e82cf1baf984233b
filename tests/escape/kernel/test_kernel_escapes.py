"""Every kernel attack is refused in a sealed process, its allowed twin works, and unconfined it succeeds."""

from functools import cache

import pytest

from tests.core.child import Outcome, identities, run_cases
from tests.escape.kernel import attacks_code, attacks_files, attacks_kernel, attacks_network
from tests.escape.kernel.attack import Attack

MODULES = (attacks_code, attacks_files, attacks_network, attacks_kernel)
EVERY = [
    pytest.param(module.__name__, name, attack, uid, id=f"{module.attacks.section}-{name}-uid{uid}")
    for module in MODULES
    for name, attack in module.attacks.attacks.items()
    for uid in identities()
]
LACKING = ("ENOSYS", "EAFNOSUPPORT", "EOPNOTSUPP")


@cache
def outcomes(module: str, uid: int) -> dict[str, Outcome]:
    """Runs all cases of a module once per user."""
    return run_cases(module, uid)


def refused(attack: Attack, outcome: Outcome) -> bool:
    if attack.killed:
        return outcome.ended == "killed" and outcome.text == "SIGSYS"
    return outcome.ended == "raised" and (outcome.errno or outcome.text).startswith(attack.answers)


@pytest.mark.parametrize(("module", "name", "attack", "uid"), EVERY)
def test_the_attack_is_refused(module: str, name: str, attack: Attack, uid: int) -> None:
    """A sealed process is refused, or killed if the filter says so."""
    outcome = outcomes(module, uid)[f"{name} sealed"]
    assert refused(attack, outcome), outcome


@pytest.mark.parametrize(("module", "name", "attack", "uid"), EVERY)
def test_the_twin_works(module: str, name: str, attack: Attack, uid: int) -> None:
    """A similar allowed operation works in the same sealed process."""
    outcome = outcomes(module, uid)[f"{name} twin"]
    assert outcome.ended == "returned", outcome


@pytest.mark.parametrize(("module", "name", "attack", "uid"), EVERY)
def test_unconfined_the_attack_succeeds(module: str, name: str, attack: Attack, uid: int) -> None:
    """Without the sandbox the attack succeeds, so the sandbox is what refuses it."""
    outcome = outcomes(module, uid)[f"{name} unconfined"]
    if attack.root and uid != 0:
        assert outcome.ended == "raised", outcome
        return
    if outcome.ended == "raised" and attack.may_fail_unconfined:
        pytest.skip(f"{attack.may_fail_unconfined}: {outcome.text}")
    if outcome.ended == "raised" and outcome.errno in LACKING:
        pytest.skip(f"this kernel has no {name}: {outcome.text}")
    assert outcome.ended in ("returned", "replaced"), outcome


@pytest.mark.parametrize("uid", identities())
def test_every_layer_that_refuses_is_reported_active(uid: int) -> None:
    """The report of the sealed process names each layer that refuses an attack as active."""
    states = outcomes(attacks_code.__name__, uid)["report"].value
    layers = {attack.layer for module in MODULES for attack in module.attacks.attacks.values()}
    assert {layer: states[layer] for layer in layers} == dict.fromkeys(layers, "active")
