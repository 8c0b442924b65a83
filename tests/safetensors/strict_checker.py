#!/usr/bin/env python3
"""Judges safetensors headers by the rules of the format, written without a look at safetensors/header.cpp.

    strict_checker.py FILE

FILE: one header behind the other, each as its length and the number of data bytes that follow it (two little-endian
64-bit numbers), then its text. Prints one character a header: 1 accepted, 0 refused.
"""

import json
import struct
import sys

BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
        "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64,
        "U64": 64}
LIMIT = 1 << 64


class Refused(Exception):
    pass


def need(condition):
    if not condition:
        raise Refused


def unique(pairs):
    need(len({name for name, _ in pairs}) == len(pairs))
    return dict(pairs)


def whole(text):
    need(not text.startswith("-"))
    number = int(text)
    need(number < LIMIT)
    return number


def no_number(_):
    raise Refused


def is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def check(raw, data_bytes):
    need(len(raw) <= 100_000_000)
    text = raw.rstrip(b" ").decode("utf-8")
    need(text[:1] == "{" and text[-1:] == "}")
    header = json.loads(text, object_pairs_hook=unique, parse_int=whole, parse_float=no_number, parse_constant=no_number)
    metadata = header.pop("__metadata__", {})
    need(isinstance(metadata, dict))
    for key, value in metadata.items():
        need(isinstance(value, str))
        key.encode(), value.encode()  # no half of a surrogate pair
    need(len(header) <= 1_000_000)
    places = []
    for name, tensor in header.items():
        need(len(name.encode()) <= 512)
        need(isinstance(tensor, dict) and set(tensor) == {"dtype", "shape", "data_offsets"})
        dtype, shape, offsets = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
        need(isinstance(dtype, str) and dtype in BITS)
        need(isinstance(shape, list) and len(shape) <= 8 and all(map(is_whole, shape)))
        need(isinstance(offsets, list) and len(offsets) == 2 and all(map(is_whole, offsets)))
        bits = BITS[dtype]
        for n in shape:
            bits *= n or 1  # a product is too large in whatever order it is taken
            need(bits < LIMIT)
        if 0 in shape:
            bits = 0
        need(bits % 8 == 0 and offsets[1] - offsets[0] == bits // 8)
        places.append(offsets)
    end = 0
    for begin, stop in sorted(places):
        need(begin == end)
        end = stop
    need(end == data_bytes)


def verdict(raw, data_bytes):
    try:
        check(raw, data_bytes)
        return "1"
    except (Refused, ValueError, RecursionError):
        return "0"


def main():
    with open(sys.argv[1], "rb") as file:
        while sizes := file.read(16):
            length, data_bytes = struct.unpack("<QQ", sizes)
            sys.stdout.write(verdict(file.read(length), data_bytes))


if __name__ == "__main__":
    main()
