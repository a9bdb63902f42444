"""Reads the file that names an engine of nipype."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.io.text import read_text


@dataclass(frozen=True)
class Engine:
    """A nipype plugin and its arguments."""

    plugin: str
    plugin_args: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path) -> Engine:
    """Read a nipype plugin and its arguments from YAML or JSON, in the form of NiPreps.

    Raises
    ------
    Refusal
        If the file does not name a plugin that waits for its jobs.
    """
    import yaml
    from nipype.pipeline import plugins

    try:
        text = read_text(path, what="YAML or JSON", skip_mark=True)
    except (OSError, ValueError) as error:
        raise Refusal(Status.USAGE, str(error)) from error
    try:
        content = yaml.safe_load(text)  # JSON is YAML
    except (RecursionError, ValueError, yaml.YAMLError) as error:  # ValueError: 2001-02-30
        why = " ".join(str(error).split())
        raise Refusal(Status.USAGE, f"{path}: not readable as YAML or JSON: {why}") from error
    except (LookupError, AttributeError) as error:  # from PyYAML, for !!int "" or !!bool maybe
        why = "a value does not fit its tag (!!int, !!bool, …)"
        raise Refusal(Status.USAGE, f"{path}: not readable as YAML or JSON: {why}") from error
    known = sorted(name.removesuffix("Plugin") for name in dir(plugins) if name.endswith("Plugin"))
    # Plugins for whole graphs submit them and return at once.
    known = [name for name in known if not name.endswith(("Graph", "DAGMan", "Debug"))]
    content = content if isinstance(content, dict) else {}
    name, arguments = content.get("plugin"), content.get("plugin_args") or {}
    if name not in known or not isinstance(arguments, dict):
        raise Refusal(
            Status.USAGE,
            f"{path}: plugin is {reprlib.repr(name)} with arguments {reprlib.repr(arguments)}; "
            f"expected plugin, one of {', '.join(known)}, and plugin_args, a mapping",
        )
    return Engine(name, arguments)
