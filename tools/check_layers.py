#!/usr/bin/env python3
"""Holds the includes of every layer against the dependency order of docs/architecture.md.

    tools/check_layers.py [ROOT]

A folder is a layer. Siblings (nn, optim, sched, comm, data; and job, engine) never include one another: what needs
two of the first belongs in engine/, what needs a job file and an engine in run/. CMake alone cannot see this: an
include that happens to resolve compiles. Every run first checks itself on a small tree with deliberate mistakes.
Exit 0: all includes follow the order, and the page's table is this one; 1: a list of what does not.
"""

import pathlib
import re
import sys
import tempfile

# What each layer may include besides itself.
BELOW_ENGINE = {"core", "kernels", "nn", "optim", "sched", "comm", "data", "config"}
ALLOWED = {
    "core": set(),
    "files": {"core"},
    "safetensors": {"core", "files"},
    "config": {"core"},
    "kernels": {"core"},
    "nn": {"core", "kernels"},
    "optim": {"core", "kernels"},
    "sched": {"core", "config"},
    "comm": {"core", "kernels"},
    "data": {"core"},
    "job": {"core", "config", "sched"},
    "engine": BELOW_ENGINE - {"config"},
    "run": BELOW_ENGINE | {"engine", "job", "files", "safetensors"},
    "apps": BELOW_ENGINE | {"engine", "job", "run", "files", "safetensors"},
}
SOURCES = {".hpp", ".cpp", ".h", ".cu", ".cuh", ".inc"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')


def violations(root):
    """Yields 'file:line: message' for each include that breaks the order."""
    for layer, below in ALLOWED.items():
        for path in sorted((root / layer).rglob("*")):
            if path.suffix not in SOURCES:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                quoted, target = match[1] == '"', match[2]
                message = judge(root, layer, below, quoted, target)
                if message:
                    yield f"{path.relative_to(root)}:{number}: {message}"


def judge(root, layer, below, quoted, target):
    """What is wrong with this include, or None."""
    first = target.split("/", 1)[0]
    if first in ALLOWED and "/" in target:
        if first != layer and first not in below:
            allowed = ", ".join(sorted(below)) or "nothing"
            return f'{layer} must not include "{target}": besides itself it may use {allowed}'
        return None
    if quoted:
        if (root / target).exists():
            return f'{layer} must not include "{target}": {first} is not a layer'
        return f'"{target}": an include path starts at the repository root, with the layer'
    return None


def outdated_rows(root):
    """Yields what the table of docs/architecture.md says otherwise than ALLOWED."""
    page = (root / "docs/architecture.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", page, re.MULTILINE))
    for layer, below in ALLOWED.items():
        expected = ", ".join(sorted(below)) or "nothing"
        if rows.get(layer) != expected:
            yield f"docs/architecture.md: {layer} includes {rows.get(layer)}, but tools/check_layers.py has {expected}"


def source_files(root):
    return sum(1 for layer in ALLOWED for path in (root / layer).rglob("*") if path.suffix in SOURCES)


def self_test():
    """The check must find each of these mistakes, and nothing else."""
    tree = {
        "core/view.hpp": "#include <vector>\n",
        "kernels/sgd/sgd.hpp": '#include "core/view.hpp"\n',
        "nn/linear.hpp": '#include "kernels/sgd/sgd.hpp"\n#include "core/view.hpp"\n',
        "engine/step.cpp": '#include "nn/linear.hpp"\n#include "comm/ring.hpp"\n',
        "apps/main.cpp": '#include "engine/step.hpp"\n',
        "tests/support/near.hpp": "\n",
        "core/bad.hpp": '#include "kernels/sgd/sgd.hpp"\n',
        "sched/bad.cpp": '\n#include "comm/ring.hpp"\n',
        "data/bad.cpp": "#  include <kernels/sgd/sgd.hpp>\n",
        "comm/bad.hpp": '#include "ring.hpp"\n',
        "optim/bad.cu": '#include "tests/support/near.hpp"\n',
        "engine/bad.cpp": '#include "apps/main.hpp"\n',
        "run/trainer.cpp": '#include "engine/step.hpp"\n#include "job/job.hpp"\n',
        "job/bad.cpp": '#include "engine/step.hpp"\n',
    }
    expected = {"core/bad.hpp:1", "sched/bad.cpp:2", "data/bad.cpp:1", "comm/bad.hpp:1", "optim/bad.cu:1",
                "engine/bad.cpp:1", "job/bad.cpp:1"}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in tree.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        found = {":".join(line.split(":", 2)[:2]) for line in violations(root)}
    if found != expected:
        sys.exit(f"check_layers: self-test failed: missed {sorted(expected - found)}, "
                 f"falsely reported {sorted(found - expected)}")


def main():
    if len(sys.argv) > 2 or any(argument.startswith("-") for argument in sys.argv[1:]):
        sys.exit("usage: check_layers.py [ROOT]")
    self_test()
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) == 2 else pathlib.Path(__file__).resolve().parent.parent
    files = source_files(root)
    if files == 0:
        sys.exit(f"check_layers: no sources under {root}: is this the repository root?")
    found = list(violations(root)) + list(outdated_rows(root))
    for line in found:
        print(line)
    if found:
        sys.exit(f"check_layers: {len(found)} includes or rows break the dependency order")
    print(f"check_layers: self-test passed; {files} files of {len(ALLOWED)} layers follow the dependency order")


if __name__ == "__main__":
    main()
