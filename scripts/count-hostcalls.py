#!/usr/bin/env python3
"""count-hostcalls.py IN.wasm OUT.wasm: a filter that counts its crossings into and out of the VM.

Every function that the filter imports from Envoy or exports to it is wrapped in one that adds 1 to a counter of Envoy's,
`calls.NAME`, and then does the same as before. So what the SDK does on its own is counted too. Such a filter is for
`make bench` alone: it tells Envoy of its counts by calls, which are not counted.
"""

import re
import subprocess
import sys
from pathlib import Path

BINARYEN = Path(__file__).resolve().parent.parent / "target/tools/wasm-opt/node_modules/.bin"
FEATURES = ["bulk-memory", "bulk-memory-opt", "multivalue", "mutable-globals", "nontrapping-float-to-int",
            "reference-types", "sign-ext"]
IMPORT = re.compile(r'^ \(import "env" "(\w+)" \(func (\S+)((?: \(param [^)]*\))?(?: \(result \w+\))?)\)\)$', re.M)
EXPORT = re.compile(r'^ \(export "(proxy_on_\w+|malloc)" \(func (\S+)\)\)$', re.M)
MEMORY = re.compile(r"^ \(memory (\S+) (\d+)( \d+)?\)$", re.M)
PAGE = 65536
COUNTER = 0  # proxy_define_metric's kind
# Envoy calls it while it waits for a hostcall's results, and allows no hostcall from within. So it adds to a global,
# which the next call hands on.
RESTRICTED = "malloc"
SELF = ("proxy_define_metric", "proxy_increment_metric")


def die(message):
    sys.exit(f"count-hostcalls: {message}")


def binaryen(tool, *arguments):
    flags = [f"--enable-{feature}" for feature in FEATURES]
    subprocess.run([BINARYEN / tool, *flags, *arguments], check=True)


def signature_of(text, function):
    found = re.search(rf"^ \(func {re.escape(function)}(.*)$", text, re.M)
    found or die(f"no function {function}")
    kinds = re.findall(r"\(param \S+ (\w+)\)", found[1])
    result = re.search(r"\(result (\w+)\)", found[1])
    return kinds, result and result[1]


def wrapper(name, number, wrapped, kinds, result):
    parameters = "".join(f" (param {kind})" for kind in kinds)
    arguments = " ".join(f"(local.get {at})" for at in range(len(kinds)))
    returns = f" (result {result})" if result else ""
    one_more = f"(global.set $calls{number} (i64.add (global.get $calls{number}) (i64.const 1)))"
    told = "" if name == RESTRICTED else "\n  (call $tell)"
    return f""" (global $calls{number} (mut i64) (i64.const 0))
 (func {name_of(number)}{parameters}{returns}
  {one_more}{told}
  (call {wrapped} {arguments}))
"""


def tell(labels, metric):
    """The function that hands what was counted on to Envoy. A counter is made when it is first needed."""
    parts = []
    for number, (label, place) in enumerate(labels):
        define = f"(call {metric[0]} (i32.const {COUNTER}) (i32.const {place}) (i32.const {len(label)})"
        parts.append(f"""
  (if (i64.ne (global.get $calls{number}) (i64.const 0)) (then
   (if (i32.eqz (global.get $metric{number})) (then
    (drop {define} (i32.const {place - 4})))
    (global.set $metric{number} (i32.load (i32.const {place - 4})))))
   (drop (call {metric[1]} (global.get $metric{number}) (global.get $calls{number})))
   (global.set $calls{number} (i64.const 0))))""")
    globals_ = "".join(f" (global $metric{number} (mut i32) (i32.const 0))\n" for number in range(len(labels)))
    data = "".join(f' (data (i32.const {place}) "{label}")\n' for label, place in labels)
    return f"{globals_} (func $tell{''.join(parts)})\n{data}"


def name_of(number):
    return f"$counted{number}"


def instrumented(text):
    memory = MEMORY.search(text) or die("no memory")
    pages = int(memory[2])
    # A page of its own behind what the module has: its allocator asks for more pages and gets those that follow.
    place = pages * PAGE + 16
    text = text.replace(memory[0], f" (memory {memory[1]} {pages + 1}{memory[3] or ''})", 1)
    imports = list(IMPORT.finditer(text))
    real = {found[1]: found[2] for found in imports}
    if any(name not in real for name in SELF):
        die("the filter defines no metric, so there is nothing to count with")
    metric = [real[name] for name in SELF]
    added, labels, renamed = [], [], {}
    crossings = [(found, found[2], *imported_signature(found[3])) for found in imports]
    crossings += [(found, found[2], *signature_of(text, found[2])) for found in EXPORT.finditer(text)]
    for number, (found, wrapped, kinds, result) in enumerate(crossings):
        added.append(wrapper(found[1], number, wrapped, kinds, result))
        label = f"calls.{found[1]}"
        labels.append((label, place))
        place += (len(label) + 8 + 7) & ~7
        if found.re is IMPORT:
            renamed[wrapped] = name_of(number)
        else:
            text = text.replace(found[0], f' (export "{found[1]}" (func {name_of(number)}))')
    head, body = text.split("\n (func ", 1)
    calls = re.compile(r"\((call|return_call|ref\.func) (\$[^\s()]+)")
    body = calls.sub(lambda call: f"({call[1]} {renamed.get(call[2], call[2])}", body)
    # The table of functions, which may hold an import, is in the head.
    head = re.sub(r"^( \(elem .*)$", lambda line: elements(line[1], renamed), head, flags=re.M)
    body = body.rstrip()[:-1]
    return f"{head}\n (func {body}\n{''.join(added)}{tell(labels, metric)})\n"


def imported_signature(text):
    kinds = re.search(r"\(param ([^)]*)\)", text)
    result = re.search(r"\(result (\w+)\)", text)
    return kinds[1].split() if kinds else [], result and result[1]


def elements(line, renamed):
    return re.sub(r"\$[^\s()]+", lambda word: renamed.get(word[0], word[0]), line)


def main():
    if len(sys.argv) != 3:
        die("usage: count-hostcalls.py IN.wasm OUT.wasm")
    source, out = map(Path, sys.argv[1:])
    text = out.with_suffix(".wat")
    binaryen("wasm-dis", source, "-o", text)
    text.write_text(instrumented(text.read_text()))
    binaryen("wasm-as", text, "-o", out)
    text.unlink()


main()
