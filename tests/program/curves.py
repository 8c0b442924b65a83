#!/usr/bin/env python3
"""Runs bench/curves.py with a stand-in for `lockstep bench step` that fails after some points, and again: the points
that were taken stay in the file, and only the others are measured.

    tests/program/curves.py bench/curves.py
"""
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

STAND_IN = """#!/usr/bin/env python3
import json, os, sys
folder = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(folder, "calls"), "a+") as calls:
    calls.write("x")
    calls.seek(0)
    count = len(calls.read())
if count == int(os.environ.get("FAILS_AT", 0)):
    sys.exit("no more")
machine = {"cpu": "CPU", "isa": "avx2, bf16 products widened", "threads": 2,
           "commit": os.environ.get("COMMIT", "c0ffee")}
step = {"item": "tokens", "items": 256, "flops": 1e9 * count, "share": 0.5, "disturbed": False,
        "seconds": {"median": 0.01 * count, "p10": 0.01 * count, "p90": 0.01 * count}}
told = {"machine": machine, "benches": [{"lines": [{"name": "ceiling"}, step], "figures": {"planned_bytes": 1}}]}
with open(sys.argv[sys.argv.index("--json") + 1], "w") as file:
    json.dump(told, file)
"""
POINTS = 13


def main():
    script = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        program, path, svg = (os.path.join(folder, name) for name in ("lockstep", "curves.json", "curves.svg"))
        with open(program, "w", encoding="utf-8") as file:
            file.write(STAND_IN)
        os.chmod(program, 0o755)

        def curves(*words, **env):
            return subprocess.run([script, "--lockstep", program, "--threads", "2", "--json", path, *words],
                                  env={**os.environ, **env}, capture_output=True, text=True)

        def points():
            with open(path, encoding="utf-8") as file:
                held = json.load(file)
            return held["sizes"] + held["lengths"]

        def calls():
            return os.path.getsize(os.path.join(folder, "calls"))

        cut = curves("--svg", svg, FAILS_AT="9")
        assert cut.returncode != 0 and "no more" in cut.stderr, cut
        assert len(points()) == 8 and not os.path.exists(svg)
        before = points()

        # Points of another commit, precision or thread count are not put beside those of this one.
        assert "name another file" in curves(COMMIT="other").stderr
        for words in (["--bf16"], ["--threads", "1"], ["--samples", "2"]):
            assert "name another file" in curves(*words).stderr, words
        assert points() == before and calls() == 10

        whole = curves("--svg", svg)
        assert whole.returncode == 0, whole.stderr
        assert points()[:8] == before and len(points()) == POINTS and calls() == 10 + POINTS - 8

        def picture():
            root = xml.etree.ElementTree.parse(svg).getroot()
            return [element for element in root if element.tag.endswith("circle")]

        assert len(picture()) == POINTS
        # Drawing what is there measures nothing.
        os.remove(svg)
        assert curves("--from", "--svg", svg).returncode == 0
        assert len(picture()) == POINTS and calls() == 10 + POINTS - 8
    print("13 points, of which 8 were there: 5 taken")


if __name__ == "__main__":
    main()
