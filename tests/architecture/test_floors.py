"""What import-linter cannot say: who may import the package's own face, and which modules do input and output."""

import ast
import subprocess
import sys

CORE = ("caprpc/wire/", "caprpc/session/", "caprpc/tls/channel.py")
"""The state machines: time is an argument, bytes go in and out."""
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


def public_names(module, repository):
    """Yield what a module takes from ``caprpc/__init__``; ``from caprpc import ids`` takes a module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name == "caprpc")
        elif isinstance(node, ast.ImportFrom) and node.module == "caprpc":
            for alias in node.names:
                below = repository / "caprpc" / alias.name
                if not below.is_dir() and not below.with_suffix(".py").is_file():
                    yield node.lineno, alias.name


def test_nothing_inside_imports_the_public_face(package, repository):
    """``caprpc/__init__`` stands on top; a floor that imports it stands above itself."""
    found = [f"{m.path}:{line} {name}" for m in package for line, name in public_names(m, repository)]
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
    # Admission keeps the contexts of the current epoch; the command line prints the version of OpenSSL; the
    # demonstration plays a stranger who has TLS and nothing else.
    allowed = ("caprpc/tls/", "caprpc/objects/epoch.py", "caprpc/cli/__init__.py", "caprpc/demo/strangers.py")
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


READS_ENVIRONMENT = {
    "caprpc/cli/exits.py": "where to keep the traceback of a bug",
}
"""File -> what for. A variable must never be able to relax a security setting."""


def test_the_environment_selects_nothing(package):
    found = set()
    for module in package:
        names = {node.attr for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
        names |= {name.rsplit(".", 1)[-1] for _, name in module.imports()}
        if names & {"environ", "environb", "getenv", "getenvb", "putenv"}:
            found.add(module.path)
    assert found == set(READS_ENVIRONMENT)


def test_chance_comes_from_the_system(package):
    """``random`` can be predicted: numbers that a peer must not guess come from ``secrets`` or ``os.urandom``."""
    found = [f"{m.path}:{line}" for m in package for line, name in m.imports() if name.split(".")[0] == "random"]
    assert not found, "\n".join(found)


WATCH = """
import asyncio, concurrent.futures, socket, ssl, subprocess
import cryptography.x509, msgpack, msgspec
sys.dont_write_bytecode = True
seen = []
def watch(event, args):
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    outside = event.split(".")[0] in {"socket", "subprocess"}
    if writes or outside or event in {"os.system", "os.fork", "os.mkdir", "os.remove", "os.rename"}:
        seen.append((event, str(args)[:200]))
sys.addaudithook(watch)
import caprpc
import threading
print(seen, threading.active_count())
"""


def test_importing_caprpc_has_no_side_effects(repository):
    """No network, no process, no thread, no file written: an audit hook sees what the interpreter does."""
    script = f"import sys\nsys.path.insert(0, {str(repository)!r})\n{WATCH}"
    run = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (run.stdout.strip(), run.stderr) == ("[] 1", "")
