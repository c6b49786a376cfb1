"""Plug-ins of installed packages: what their entry points offer, read without importing any.

    [project.entry-points."yoto_bench.tasks"]
    ridge = "my_package.ridge:Ridge"        in a package's pyproject.toml: a name, and its class

    offers("task")                          an Offer each, in the order of their names
    load(offer, Task)                       its class; Unloadable says why there is none

The group of methods is `yoto_bench.methods`. The name is the class's own `name`, and the module the
one in which the class is written. A package is imported when a plug-in of it is used. A stored
result names the class, and no class is imported for one that no installed package offers.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.plugins import loading
from bench.plugins.loading import Unloadable
from bench.plugins.names import unfit

GROUPS = {"task": "yoto_bench.tasks", "method": "yoto_bench.methods"}
SUITE_PACKAGE = "yoto-bench"


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A task or a method by its name: its class, as "module:Class", and the package it is from."""

    what: str  # "task" or "method"
    name: str
    target: str
    package: str = SUITE_PACKAGE
    version: str = ""

    @property
    def whole_name(self) -> str:
        """The name with its package, which is clear where two packages offer the same name."""
        return f"{self.package}:{self.name}"

    @property
    def origin(self) -> str:
        """The package and its version; "" for the suite."""
        return "" if self.package == SUITE_PACKAGE else f"{self.package} {self.version}".strip()


def offers(what: str) -> tuple[Offer, ...]:
    """The tasks, or the methods, that installed packages offer."""
    return _offers(what, tuple((place, _changed(place)) for place in sys.path))


def _changed(place: str) -> int:
    try:
        return os.stat(place or ".").st_mtime_ns
    except OSError:
        return 0


@functools.lru_cache(maxsize=8)
def _offers(what: str, places: tuple[tuple[str, int], ...]) -> tuple[Offer, ...]:
    """`places`: where packages lie and when that changed, so that a new one is seen."""
    from importlib import metadata  # what needs no name needs none of it

    listed = [
        Offer(
            what=what,
            name=point.name,
            target=point.value.partition("[")[0].replace(" ", ""),
            package=str((point.dist and point.dist.name) or "?"),
            version=str((point.dist and point.dist.version) or ""),
        )
        for point in metadata.entry_points(group=GROUPS[what])
    ]
    return tuple(sorted(listed, key=lambda offer: (offer.name, offer.package)))


def target_of(kind: type) -> str:
    """A class as an entry point names it."""
    return f"{kind.__module__}:{kind.__qualname__}"


def offering(target: str) -> Offer | None:
    """What leads to a class, "module:Class", or None where no installed package offers it."""
    every = (offer for what in GROUPS for offer in offers(what))
    return next((offer for offer in every if offer.target == target), None)


def load(offer: Offer, base: type) -> type:
    """The class of an offer, whose package is imported. Raises Unloadable."""
    module, _, attributes = offer.target.partition(":")
    try:
        kind = functools.reduce(getattr, attributes.split("."), importlib.import_module(module))
    except (Exception, SystemExit) as error:  # a package may do anything while it is imported
        raise _fault(offer, f"{type(error).__name__}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, base)) or inspect.isabstract(kind):
        raise _fault(offer, f"{offer.target} is no whole {base.__name__}")
    if target_of(kind) != offer.target:
        raise _fault(
            offer, f"its class is written elsewhere: the entry point must be {target_of(kind)!r}"
        )
    name = getattr(kind, "name", None)
    if name != offer.name:
        raise _fault(offer, f"its class is called {name!r}: the entry point needs the same name")
    if reason := unfit(name):
        raise _fault(offer, f"it has a name {reason}")
    source(kind)  # of the files that are run now, not of what they are changed to later
    return kind


def source(kind: type) -> str | None:
    """The digest of a class that an installed package offers: of the file it is written in and of
    what that imports from the same package; None for any other class."""
    offer = offering(target_of(kind))
    if offer is None:
        return None
    try:
        return loading.digest(Path(inspect.getfile(kind)).resolve(), kind.__module__)
    except (TypeError, OSError):  # no file, as in an archive
        return f"{offer.package} {offer.version}"


def _fault(offer: Offer, reason: str) -> Unloadable:
    return Unloadable(
        f"the {offer.what} {offer.name!r} of the installed package {offer.package} cannot be used "
        f"({reason}): mend the package, or take it away with `pip uninstall {offer.package}`"
    )
