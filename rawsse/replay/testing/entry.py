"""Where pytest finds the plugin: this file is installed outside of the package, as `_rawsse_pytest`, and stands for the other.

This file knows where the plugin lies. It refuses to know what the plugin does. To import anything in a package is to import the
package, and most test runs on a machine do not need rawsse: so `pytest_plugin.py` is loaded by its path. An editable install
copies this file, and none else; as it says nothing of its own, the copy does not get old.

    [project.entry-points.pytest11]
    rawsse = "_rawsse_pytest"
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

NAME = "_rawsse_pytest"


def load() -> ModuleType:
    """The plugin, under the name of this file's copy. Raises `ImportError` if rawsse is not where it can be imported from."""
    package = find_spec("rawsse")  # finds it, and does not import it
    if package is None or package.origin is None:
        raise ImportError("rawsse's pytest plugin is installed, and rawsse is not")
    spec = spec_from_file_location(NAME, Path(package.origin).parent / "replay" / "testing" / "pytest_plugin.py")
    if spec is None or spec.loader is None:
        raise ImportError("rawsse's pytest plugin is no Python file")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == NAME:
    sys.modules[NAME] = load()  # what `import _rawsse_pytest` gives
