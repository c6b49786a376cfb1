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
# Of the tasks of heads that do not say so, in words.
TITLES = {
    "beta_vae_cifar10": "β-VAE, CIFAR-10",
    "beta_vae_scenes": "β-VAE, rendered scenes",
    "beta_vae_shapes3d": "β-VAE, 3D Shapes",
    "compression": "image compression",
    "digits": "β-VAE, handwritten digits",
    "fairness": "income prediction, fairness",
    "quadratic": "linear targets, exact answer known",
    "quantiles": "quantile regression",
    "registration": "image registration",
    "style": "style transfer",
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
    display = content.get("display")
    if isinstance(display, dict) and "title" not in display:
        title = TITLES.get(str(content.get("task")), "")
        content = {**content, "display": {**display, "title": title}}
    return content
