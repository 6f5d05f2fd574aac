"""The execution provider that a model is built for: where a configuration says it, and what comes of it."""

from collections.abc import Iterator
from typing import Any

from tools.olive import building
from tools.olive.document import Object, leaves, section
from tools.olive.fate import Fate, Kind, otherwise, refused, taken
from tools.olive.machine import used

DEVICES = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider"}


def providers_of(document: Object) -> tuple[list[str], str]:
    """The execution providers, in Olive's words, of which the first counts, and the place that says so.

    Raises:
        InputError: a host or target is in no `systems`.
    """
    engine = section(document.get("engine", {}), "engine")
    places = [(f"{path}execution_providers", tree) for path, tree in (("engine.", engine), ("", document))]
    said = [(tree.get("execution_providers"), place) for place, tree in places]
    for role in ("target", "host"):
        path, system = used(document, role)
        said += [(leaf.value, leaf.path) for leaf in leaves(system, path) if leaf.name == "accelerators.execution_providers"]
        said += devices(path, system)
    return next(((names_in(given), place) for given, place in said if given), ([building.DEFAULT], ""))


def names_in(given: Any) -> list[str]:
    """The providers of a list of them; one that is a library of its own stands with its path."""
    listed = given if isinstance(given, list) else [given]
    return [str(one[0] if isinstance(one, list) and one else one) for one in listed]


def devices(path: str, system: Object) -> Iterator[tuple[list[str], str]]:
    """The execution providers of a system's devices, with their place; the older generation lists the devices' names alone."""
    for leaf in leaves(system, path):
        if leaf.name in ("accelerators", "accelerators.device") and leaf.value:
            listed = leaf.value if isinstance(leaf.value, list) else [leaf.value]
            yield [DEVICES.get(str(device).lower(), str(device)) for device in listed], leaf.path


def provider_fate(providers: list[str], builds: bool | None) -> Fate:
    """What becomes of the place that says the execution provider.

    Args:
        providers: in Olive's words.
        builds: whether a pass builds a model; None where the configuration has no passes.
    """
    name = providers[0]
    if builds is False:
        return otherwise("nothing is built; training takes a GPU where there is one")
    if name not in building.PROVIDERS:
        return refused(f"the builder makes no model for it; this one is for {building.DEFAULT}")
    fate = Fate(Kind.taken, f"build.execution_provider={building.PROVIDERS[name][0]}")
    if builds is None:
        fate = taken("/build", building.group("int4", name, "execution_providers"))
    if len(providers) == 1:
        return fate
    return Fate(Kind.refused, f"{fate.said}, and one provider a run: import again for {', '.join(providers[1:])}", fate.values)


def known(provider: str) -> str:
    """The same provider, or the one in place of one that the builder does not know."""
    return provider if provider in building.PROVIDERS else building.DEFAULT
