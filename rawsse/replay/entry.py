"""Where pytest finds the plugin of rawsse: `pytest_plugin.py`, loaded by its path.

Importing a module of a package imports the package, and most test runs on a machine do not need rawsse. So this file is
installed beside the package, as `_rawsse_pytest` (`[project.entry-points.pytest11]` in `pyproject.toml`).
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

NAME = "_rawsse_pytest"


def load() -> ModuleType:
    """The plugin, under the name of this file when it is installed. Raises `ImportError` if rawsse cannot be found."""
    package = find_spec("rawsse")  # finds it, and does not import it
    if package is None or package.origin is None:
        raise ImportError("the pytest plugin of rawsse is installed, but rawsse cannot be found")
    spec = spec_from_file_location(NAME, Path(package.origin).parent / "replay" / "pytest_plugin.py")
    if spec is None or spec.loader is None:
        raise ImportError("the pytest plugin of rawsse is not a Python file")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == NAME:
    sys.modules[NAME] = load()  # what `import _rawsse_pytest` gives
