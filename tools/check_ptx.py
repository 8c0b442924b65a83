#!/usr/bin/env python3
"""What the device compiler made of every kernel, held against tools/ptx_budget.toml.

Compiles each .cu file once for one architecture, with the flags of the build, and tabulates for every kernel: registers
and spills (ptxas -v), static shared memory, global loads and stores of 16 bytes (the same compile's PTX).

Fails on: a spill; more registers than the budget; no 16-byte access where the budget wants one; a kernel without a
budget and a budget without a kernel; docs/kernels_gpu.md holding another table (where it was made by the same toolkit).

Status: 0 all is within the budget, 1 something is not, 2 usage, 77 no nvcc here (said, and taken as skipped by ctest).
"""

import argparse
import concurrent.futures
import fnmatch
import hashlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUDGET = ROOT / "tools" / "ptx_budget.toml"
PAGE = ROOT / "docs" / "kernels_gpu.md"
ARCHITECTURE = "90"  # H100 and H200: the one that budgets and page are for
BEGIN, END = "<!-- table of tools/check_ptx.py: begin -->", "<!-- table of tools/check_ptx.py: end -->"


def find_nvcc():
    for candidate in (os.environ.get("CUDACXX"), shutil.which("nvcc"), "/usr/local/cuda/bin/nvcc"):
        if candidate and os.access(candidate, os.X_OK):
            return pathlib.Path(candidate)
    return None


def run(command, **kwargs):
    result = subprocess.run(command, text=True, capture_output=True, check=False, **kwargs)
    if result.returncode != 0:
        sys.exit(f"check_ptx: failed: {shlex.join(map(str, command))}\n{result.stdout}{result.stderr}")
    return result


# --- what a compile says -----------------------------------------------------------------------------------------------


def accesses(text):
    """Global loads and stores of 16 bytes or more in a kernel's PTX."""
    count = {"load": 0, "store": 0}
    for line in text.splitlines():
        match = re.match(r"\s*(?:@!?%p\d+\s+)?(ld|st)\.([\w.:]+)\s", line)
        if not match:
            continue
        words = match[2].replace("::", ".").split(".")
        if {"shared", "local", "param", "const"} & set(words):
            continue
        vector = next((int(word[1:]) for word in words if re.fullmatch(r"v[248]", word)), 1)
        if vector * int(re.sub(r"\D", "", words[-1])) >= 128:
            count["load" if match[1] == "ld" else "store"] += 1
    return count


def kernels_of_ptx(text):
    """Mangled name -> its 16-byte accesses, for every kernel of a PTX file."""
    parts = re.split(r"^\.?(?:visible |weak )?\.entry\s+(\w+)\(", text, flags=re.MULTILINE)
    return {name: accesses(body) for name, body in zip(parts[1::2], parts[2::2])}


def kernels_of_ptxas(text):
    """Mangled name -> registers, spill bytes and shared bytes, as ptxas -v reports them."""
    found, entry = {}, None
    for line in text.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            entry = found.setdefault(match[1], {"registers": 0, "spills": 0, "shared": 0})
        elif entry is None:
            continue
        elif match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            entry["spills"] += int(match[1]) + int(match[2])
        elif match := re.search(r"Used (\d+) registers", line):
            entry["registers"] = int(match[1])
            if shared := re.search(r"(\d+) bytes smem", line):
                entry["shared"] = int(shared[1])
    return found


def readable(mangled):
    """Mangled names -> names without namespaces and arguments."""
    lines = run(["c++filt"], input="\n".join(mangled)).stdout.splitlines()
    names = {}
    for raw, name in zip(mangled, lines):
        name = name.replace("(anonymous namespace)::", "")
        name = re.sub(r"\b(?:lockstep|kernels|cuda)::", "", name)
        name = re.sub(r"^void ", "", name)
        depth = 0
        for at, letter in enumerate(name):  # arguments begin at the first parenthesis outside <>
            depth += {"<": 1, ">": -1}.get(letter, 0)
            if letter == "(" and depth == 0:
                name = name[:at]
                break
        names[raw] = name
    return names


def measure(nvcc, source, flags, folder, architecture=ARCHITECTURE):
    """Compiles one file; returns a list of {file, name, registers, spills, shared, load, store}."""
    ptx = folder / (source.stem + ".ptx")
    run([nvcc, *flags, f"-arch=compute_{architecture}", "-ptx", source, "-o", ptx])
    report = run([nvcc.parent / "ptxas", "-v", f"-arch=sm_{architecture}", ptx, "-o", os.devnull])
    wide, used = kernels_of_ptx(ptx.read_text()), kernels_of_ptxas(report.stderr + report.stdout)
    if wide.keys() != used.keys():
        sys.exit(f"check_ptx: {source}: PTX and ptxas name different kernels: {sorted(wide.keys() ^ used.keys())}")
    names = readable(sorted(used))
    return [{"file": source.stem, "name": names[raw], **used[raw], **wide[raw]} for raw in sorted(used)]


# --- the tree's own kernels ---------------------------------------------------------------------------------------------


def flags_of(command):
    """The flags of a build's command that are not about which file becomes what, and for which architectures."""
    words, flags = shlex.split(command), []
    start = next(i for i, word in enumerate(words) if pathlib.Path(word).name == "nvcc")
    skip = False
    for word in words[start + 1 :]:
        if skip:
            skip = False
        elif word in ("-o", "-MF", "-MT", "-x"):
            skip = True
        elif word in ("-c", "-MD", "-MP", "-dc") or word.endswith(".cu") or "-generate-code" in word or "-arch" in word:
            pass
        else:
            flags.append(word)
    return flags


def commands_of(build):
    path = build / "compile_commands.json"
    if not path.exists():
        sys.exit(f"check_ptx: {path} does not exist: configure that build first")
    commands = [entry for entry in json.loads(path.read_text())
                if entry["file"].endswith(".cu") and re.search(r"(^|/)nvcc ", entry["command"])]
    if not commands:
        sys.exit(f"check_ptx: {build} compiles nothing with nvcc: configure it with -DLOCKSTEP_CUDA=ON")
    return {pathlib.Path(entry["file"]): flags_of(entry["command"]) for entry in commands}


def measure_tree(nvcc, build, version, architecture):
    """All kernels. What is compiled again is what changed: any header counts for all files."""
    commands = commands_of(build)
    folder = build / "ptx" / architecture
    folder.mkdir(parents=True, exist_ok=True)
    headers = hashlib.sha256(version.encode())
    headers.update(pathlib.Path(__file__).read_bytes())
    for header in sorted(path for layer in ("core", "kernels") for path in (ROOT / layer).rglob("*.hpp")):
        headers.update(header.read_bytes())

    def one(source):
        key = headers.copy()
        key.update(source.read_bytes() + repr(commands[source]).encode())
        kept = folder / (source.stem + ".json")
        if kept.exists() and (known := json.loads(kept.read_text()))["key"] == key.hexdigest():
            return known["kernels"]
        kernels = measure(nvcc, source, commands[source], folder, architecture)
        kept.write_text(json.dumps({"key": key.hexdigest(), "kernels": kernels}))
        return kernels

    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return [kernel for kernels in pool.map(one, sorted(commands)) for kernel in kernels]


# --- judging ------------------------------------------------------------------------------------------------------------


def matches(rule, kernel):
    return rule["file"] == kernel["file"] and fnmatch.fnmatchcase(kernel["name"], rule["name"])


def violations(kernels, rules):
    found = []
    for kernel in kernels:
        name = f"{kernel['file']}: {kernel['name']}"
        if kernel["spills"]:
            found.append(f"spill: {name} spills {kernel['spills']} bytes")
        own = [rule for rule in rules if matches(rule, kernel)]
        if len(own) != 1:
            found.append(f"budget: {name} ({kernel['registers']} registers) has {len(own)} entries in {BUDGET.name}, "
                         "not one")
            continue
        if kernel["registers"] > own[0]["registers"]:
            found.append(f"registers: {name} uses {kernel['registers']}, its budget is {own[0]['registers']}")
        for access in own[0].get("wide", []):
            if kernel[access] == 0:
                found.append(f"narrow: {name} has no 16-byte {access}")
    for rule in rules:
        if not any(matches(rule, kernel) for kernel in kernels):
            found.append(f"stale: the entry {rule['file']}: {rule['name']} of {BUDGET.name} is of no kernel")
    return found


def span(values):
    values = sorted(set(values))
    return str(values[0]) if len(values) == 1 else f"{values[0]}-{values[-1]}"


def table(kernels, rules, version):
    """The page's table: a line for each entry of the budget."""
    lines = [f"{version}, sm_{ARCHITECTURE}; {len(kernels)} kernels, spills: "
             f"{sum(kernel['spills'] for kernel in kernels)} bytes", "",
             "| file | kernel | number | registers : budget | shared, bytes | 16-byte loads | stores | bytes moved |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for rule in rules:
        own = [kernel for kernel in kernels if matches(rule, kernel)]
        if not own:
            continue
        column = {key: span(kernel[key] for kernel in own) for key in ("registers", "shared", "load", "store")}
        wide = {access: column[access] + (" (needed)" if access in rule.get("wide", []) else "")
                for access in ("load", "store")}
        lines.append(f"| {rule['file']} | `{rule['name']}` | {len(own)} | {column['registers']} : {rule['registers']} | "
                     f"{column['shared']} | {wide['load']} | {wide['store']} | {rule['bytes']} |")
    return "\n".join(lines)


def page_violations(page, text):
    if BEGIN not in page or END not in page:
        return [f"page: {PAGE.name} has no place for the table"]
    held = page.split(BEGIN)[1].split(END)[0].strip()
    if held.split(",")[0] != text.split(",")[0]:
        print(f"{PAGE.name} was made by {held.split(',')[0]}: not compared")
        return []
    return [] if held == text else [f"page: {PAGE.name} holds another table: run tools/check_ptx.py BUILD --write"]


# --- the check's own check ------------------------------------------------------------------------------------------------

PLANTED = """
struct alignas(16) Four { float v[4]; };
__global__ void wide(const Four* from, Four* to, float a) {
  Four x = from[threadIdx.x];
  for (int k = 0; k < 4; ++k) x.v[k] *= a;
  to[threadIdx.x] = x;
}
__global__ void narrow(const float* from, float* to, float a) {
  __shared__ alignas(16) Four held[32];
  for (int k = 0; k < 4; ++k) held[threadIdx.x].v[k] = from[4 * threadIdx.x + k] * a;
  __syncthreads();
  Four x = held[threadIdx.x ^ 1];
  for (int k = 0; k < 4; ++k) to[4 * threadIdx.x + k] = x.v[k];
}
template <int N>
__global__ void __launch_bounds__(1024, 2) spilling(const float* from, float* to) {
  float x[N];
  for (int k = 0; k < N; ++k) x[k] = from[k * 1024 + threadIdx.x];
  __syncthreads();
  for (int round = 0; round < 3; ++round)
    for (int k = 0; k < N; ++k) x[k] = x[k] * x[(k * 7 + 1) % N] + x[(k + round) % N];
  for (int k = 0; k < N; ++k) to[k * 1024 + threadIdx.x] = x[k];
}
template __global__ void spilling<64>(const float*, float*);
"""


def self_test(nvcc):
    """Plants one violation of each kind, and none; returns a message for each that is not told apart."""
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "planted.cu"
        source.write_text(PLANTED)
        kernels = {kernel["name"]: kernel for kernel in measure(nvcc, source, ["-std=c++20", "-O3"], source.parent)}

    def kinds(names, rules, page=None):
        chosen = [kernels[name] for name in names]
        rules = [{"file": "planted", "bytes": "", **rule} for rule in rules]
        found = violations(chosen, rules)
        if page is not None:
            text = table(chosen, rules, "CUDA 1")
            found += page_violations(page.replace("TABLE", text), text)
        return [message.split(":")[0] for message in found]

    wide = {"name": "wide", "registers": 32, "wide": ["load", "store"]}
    cases = [
        ("nothing is wrong", ["wide"], [wide], None, []),
        ("a spill", ["spilling<64>"], [{"name": "spilling<*>", "registers": 64}], None, ["spill"]),
        ("too many registers", ["wide"], [{**wide, "registers": 4}], None, ["registers"]),
        ("no 16-byte access, though shared memory has them", ["narrow"],
         [{"name": "narrow", "registers": 64, "wide": ["load", "store"]}], None, ["narrow", "narrow"]),
        ("a kernel without a budget", ["wide", "narrow"], [wide], None, ["budget"]),
        ("a kernel with two", ["wide"], [wide, {**wide, "name": "w*"}], None, ["budget"]),
        ("a budget without a kernel", ["wide"], [wide, {"name": "gone", "registers": 9}], None, ["stale"]),
        ("a page as it should be", ["wide"], [wide], f"{BEGIN}\nTABLE\n{END}", []),
        ("a page with another table", ["wide"], [wide], f"{BEGIN}\nTABLE |\n{END}", ["page"]),
        ("a page without a table", ["wide"], [wide], "", ["page"]),
    ]
    wrong = []
    for what, names, rules, page, expected in cases:
        found = kinds(names, rules, page)
        print(f"{'ok' if found == expected else 'WRONG'}: {what}: {', '.join(found) or 'nothing found'}")
        if found != expected:
            wrong.append(f"{what}: found {found}, planted {expected}")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", nargs="?", type=pathlib.Path, help="a configured build folder, with CUDA on")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--spills", metavar="N", help="look at another architecture, e.g. 80 or 100, for spills alone")
    parser.add_argument("--all", action="store_true", help="print a line for every kernel too")
    parser.add_argument("--self-test", action="store_true", help="plant violations; fail if one is not found")
    options = parser.parse_args()
    if not options.self_test and options.build is None:
        parser.error("a build folder is needed")
    nvcc = find_nvcc()
    if nvcc is None:
        print("SKIPPED: no nvcc here: registers, spills and 16-byte accesses were not looked at")
        return 77
    if options.self_test:
        wrong = self_test(nvcc)
        print("\n".join(wrong))
        return 1 if wrong else 0

    version = "CUDA " + re.search(r"V([\d.]+)", run([nvcc, "--version"]).stdout)[1]
    rules = tomllib.loads(BUDGET.read_text())["kernel"]
    kernels = measure_tree(nvcc, options.build.resolve(), version, options.spills or ARCHITECTURE)
    if options.all:
        for kernel in kernels:
            print("{registers:4} registers {spills:4} spilled {shared:6} shared {load:3} loads {store:3} stores of 16  "
                  "{file}: {name}".format(**kernel))
    if options.spills:
        found = [message for message in violations(kernels, rules) if message.startswith("spill")]
        print(f"sm_{options.spills}: " + ("\n".join(found) or f"no spills in {len(kernels)} kernels"))
        return 1 if found else 0
    text = table(kernels, rules, version)
    if options.write:
        page = PAGE.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    print(text)
    found = violations(kernels, rules) + page_violations(PAGE.read_text() if PAGE.exists() else "", text)
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
