"""The version of this package, for events and reports that name their tool."""

import importlib.metadata


def package_version() -> str:
    """Return the installed version; ``0`` in a checkout that is not installed."""
    try:
        return importlib.metadata.version("caprpc")
    except importlib.metadata.PackageNotFoundError:
        return "0"
