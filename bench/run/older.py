"""Folders of older versions: what their JSON has otherwise that no default can say."""

from __future__ import annotations

from typing import Any

# Of the methods of heads that do not say so: role, whether tuned, label.
ROLES = {
    "fixed_grid": ("reference", False, "fixed grid"),
    "fixed_grid_tuned": ("reference", True, "fixed grid tuned"),
    "yoto": ("under test", False, "YOTO"),
    "yoto_tuned": ("under test", True, "YOTO tuned"),
    "single_model": ("floor", False, "single model"),
    "warm_grid": ("warm start", False, "warm grid"),
}


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """An object as this version writes it. It may be anybody's, so nothing relies on its types."""
    if "before" not in content and isinstance(content.get("after"), dict):  # cells in one another
        before, earlier = [], content["after"]
        while isinstance(earlier, dict):
            before.append(earlier)
            earlier = earlier.get("after")
        content = {**content, "before": before}
    if "display" in content and "role" not in content:
        name, bracket, changed = str(content.get("method")).partition("[")
        role, tuned, label = ROLES.get(name, ("", False, name.replace("_", " ")))
        content = {**content, "role": role, "tuned": tuned, "label": label + bracket + changed}
    return content
