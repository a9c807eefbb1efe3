"""What import-linter cannot say: who may import the package's own face, and which modules do input and output."""

import subprocess
import sys

CORE = ("caprpc/wire/", "caprpc/session/", "caprpc/tls/channel.py", "caprpc/objects/", "caprpc/interface/")
OUTSIDE_WORLD = {
    "socket",
    "select",
    "selectors",
    "asyncio",
    "threading",
    "_thread",
    "logging",
    "time",
    "random",
    "signal",
    "subprocess",
}
NEVER_LOADED = ["pickle", "_pickle", "shelve", "multiprocessing", "xmlrpc"]


def test_nothing_inside_imports_the_public_face(package):
    """``caprpc/__init__`` stands on top; a floor that imports it stands above itself."""
    found = [
        f"{module.path}:{line}"
        for module in package
        for line, name in module.imports()
        if name == "caprpc" and not module.path.startswith(("caprpc/cli/demo", "caprpc/testing"))
    ]
    assert not found, "\n".join(found)


def test_imports_name_the_whole_path(package):
    found = [f"{m.path}:{line} {name}" for m in package for line, name in m.imports() if name.startswith(".")]
    assert not found, "\n".join(found)


def test_the_core_has_no_socket_clock_thread_or_log(package):
    found = [
        f"{module.path}:{line} {name}"
        for module in package
        if module.path.startswith(CORE)
        for line, name in module.imports()
        if name.split(".")[0] in OUTSIDE_WORLD
    ]
    assert not found, "\n".join(found)


def test_only_tls_touches_ssl(package):
    allowed = ("caprpc/tls/", "caprpc/pki/", "caprpc/cli/", "caprpc/testing")
    found = [
        f"{module.path}:{line}"
        for module in package
        if not module.path.startswith(allowed)
        for line, name in module.imports()
        if name == "ssl"
    ]
    assert not found, "\n".join(found)


def loaded_by(repository, imports):
    """Run import statements in a fresh interpreter; return which modules of NEVER_LOADED are there afterwards."""
    script = [
        "import sys",
        f"sys.path.insert(0, {str(repository)!r})",
        *imports,
        f"print([name for name in {NEVER_LOADED!r} if name in sys.modules])",
    ]
    command = [sys.executable, "-I", "-c", "\n".join(script)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return run.stdout.strip(), run.stderr


def test_importing_caprpc_loads_nothing_that_unpickles(repository):
    assert loaded_by(repository, ["import caprpc"]) == ("[]", "")


def test_no_module_of_the_core_loads_anything_that_unpickles(repository, package):
    names = [
        module.path.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
        for module in package
        if not module.path.startswith(("caprpc/cli/", "caprpc/testing", "caprpc/__main__"))
    ]
    assert loaded_by(repository, [f"import {name}" for name in names]) == ("[]", "")
