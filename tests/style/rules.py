#!/usr/bin/env python3
"""The rules of the house that a machine can check (docs/style.md): sizes, includes, READMEs, names of machines.

rules.py ROOT   prints one line a violation, exits 1 when there are any.
"""
import ast
import pathlib
import re
import subprocess
import sys

import cpp_scan

FILE_LINES, FUNCTION_LINES, KERNEL_LINES, PARAMETERS, NESTING, README_LINES = 400, 50, 150, 5, 3, 120
FOLDERS = ["kernels", "net", "cache", "parallel", "worker", "coordinator", "launch", "tests"]
CPP = {".h", ".cpp", ".cu", ".cuh"}
SIZED = CPP | {".py", ".sh", ".proto", ".cmake"}
# Written in pieces so that this file does not break its own rule.
MACHINE = re.compile(r"(?<![\w.$}~<>-])/(?:" + "|".join(["wo" + "rk", "ro" + "ot", "ho" + "me", "op" + "t"]) + r")/[\w.]")
HOSTS = re.compile("|".join(re.escape(a + "." + b) for a, b in [
    ("pypi", "org"), ("pythonhosted", "org"), ("deb.debian", "org"), ("archive.ubuntu", "com"), ("registry.npmjs", "org"),
    ("crates", "io"), ("proxy.golang", "org")]))
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b(?!\(#\d+\))")


def tracked(root):
    """Files that git knows or would add; all files where there is no git."""
    run = subprocess.run(["git", "-C", str(root), "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True)
    if run.returncode == 0:
        names = run.stdout.splitlines()
    else:
        names = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and "build" not in p.parts]
    return sorted(name for name in set(names) if (root / name).is_file())


def read(path):
    return path.read_text(encoding="utf-8", errors="replace")


def graph(root):
    """{folder: folders it may stand on}, from the same lines that CMake obeys."""
    found = re.findall(r"set\(accrete_graph_(\w+)([^)]*)\)", read(root / "cmake" / "AccreteFolders.cmake"))
    return {name: set(rest.split()) for name, rest in found}


def check_size(name, text):
    count = text.count("\n") + (not text.endswith("\n"))
    if count > FILE_LINES:
        yield f"{name}:1: {count} lines, at most {FILE_LINES}"


def check_cpp_functions(name, text):
    functions, declarations = cpp_scan.scan(text)
    for f in functions:
        limit = KERNEL_LINES if f.kernel else FUNCTION_LINES
        if f.length > limit:
            yield f"{name}:{f.line}: {f.name} has {f.length} lines, at most {limit}"
        if f.nesting > NESTING:
            yield f"{name}:{f.line}: {f.name} nests {f.nesting} deep, at most {NESTING}"
    for f in functions + declarations:
        if f.parameters > PARAMETERS and not re.fullmatch(r"[A-Z_0-9]+", f.name):
            yield f"{name}:{f.line}: {f.name} has {f.parameters} parameters, at most {PARAMETERS}"


def check_python_functions(name, text):
    for node in ast.walk(ast.parse(text, name)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        length = node.end_lineno - node.lineno + 1
        parameters = [a.arg for a in node.args.posonlyargs + node.args.args + node.args.kwonlyargs if a.arg not in ("self", "cls")]
        if length > FUNCTION_LINES:
            yield f"{name}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}"
        if len(parameters) > PARAMETERS:
            yield f"{name}:{node.lineno}: {node.name} has {len(parameters)} parameters, at most {PARAMETERS}"


def check_includes(name, text, edges):
    """A folder includes itself and what it stands on; tests of a folder see what the folder sees, and tests."""
    parts = name.split("/")
    home = parts[1] if parts[0] == "tests" and len(parts) > 2 else parts[0]
    allowed = edges.get(home, set(edges)) | {home} | ({"tests"} if parts[0] == "tests" else set())
    for number, line in enumerate(text.splitlines(), 1):
        found = re.match(r'\s*#\s*include\s+["<](\w+)/', line)
        if found and found.group(1) in set(edges) | {"tests"} and found.group(1) not in allowed:
            yield f"{name}:{number}: {home} may not include {found.group(1)}/"
        if re.match(r'\s*#\s*include\s+"\.', line):
            yield f"{name}:{number}: include from the root of the project, not with dots"


def check_words(name, text):
    for number, line in enumerate(text.splitlines(), 1):
        if MACHINE.search(line) and not line.startswith("#!"):
            yield f"{name}:{number}: a path of one machine: {MACHINE.search(line).group(0)}..."
        if HOSTS.search(line):
            yield f"{name}:{number}: a package registry's host: {HOSTS.search(line).group(0)}"
        if UNFINISHED.search(line):
            yield f"{name}:{number}: {UNFINISHED.search(line).group(1)} without an issue, as in (#12)"


def check_readmes(root, names):
    for folder in FOLDERS + ["docs"]:
        if f"{folder}/README.md" not in names:
            yield f"{folder}/README.md: is missing"
    for name in names:
        if name.endswith("README.md"):
            count = read(root / name).count("\n")
            if count > README_LINES:
                yield f"{name}:1: {count} lines, at most {README_LINES}"


def check_table(root, edges):
    """The folder table of docs/architecture.md says what CMake enforces."""
    rows = re.findall(r"^\| (\w+) \|[^|]*\| ([^|]*) \|$", read(root / "docs" / "architecture.md"), re.M)
    table = {name: set(re.findall(r"\w+", stands)) - {"nothing"} for name, stands in rows if name in edges}
    for name, allowed in edges.items():
        written = set(edges) - {name} if table.get(name) == {"all"} else table.get(name)
        if written != allowed:
            yield f"docs/architecture.md: the folder table says {name} stands on {sorted(written or [])}, CMake says {sorted(allowed)}"


def check_file(root, name, edges):
    path = root / name
    text = read(path)
    suffix = path.suffix
    if suffix in SIZED:
        yield from check_size(name, text)
    if suffix in CPP:
        yield from check_cpp_functions(name, text)
        yield from check_includes(name, text, edges)
    elif suffix == ".py":
        yield from check_python_functions(name, text)
    if suffix in SIZED | {".md", ".txt", ".json", ".yaml", ".sbatch"} or path.name in ("run", "CMakeLists.txt"):
        yield from check_words(name, text)


def check(root):
    root = pathlib.Path(root)
    names = tracked(root)
    edges = graph(root)
    for name in names:
        yield from check_file(root, name, edges)
    yield from check_readmes(root, names)
    yield from check_table(root, edges)


def main():
    violations = list(check(sys.argv[1]))
    for line in violations:
        print(line)
    print(f"{len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
