"""Translates CUDA C++ to C++ for the emulated device: translate.py FROM TO

Launches, shared memory, launch bounds and the PTX instructions in asm statements, which a C++ compiler
does not understand, become calls of functions in device_code.h. Everything else stays as it is. An unknown
instruction is an error."""

import os
import re
import sys


def end_of(text, at):
    """The position after the bracket that closes the one at `at`."""
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i + 1
    raise SystemExit("a bracket is not closed")


def launches(text):
    # kernel<A, b><<<grid, block>>>(arguments): the arguments stay where they are.
    name = r"(\w+(?:<[\w, ]+>)?)\s*<<<(.*?)>>>"
    return re.sub(name, r"::emulation::configure(\1, \2)", text, flags=re.S)


def shared_memory(text):
    text = re.sub(r"extern __shared__ (?:__align__\(\d+\) )?(\w+) (\w+)\[\];",
                  r"\1* const \2 = ::emulation::dynamic_shared<\1>();", text)
    # New in every block: the first of its threads to get here poisons it.
    return re.sub(r"__shared__ (alignas\(\d+\) )?([\w:<>]+ )(\w+)((?:\[[^;]*\])?);",
                  r"\1 static \2\3\4; ::emulation::declare_shared(&\3, sizeof \3);", text)


def launch_bounds(text):
    """The most threads of a block, which come first, are the first thing that a kernel looks at."""
    result, at = "", 0
    for found in re.finditer(r"__launch_bounds__\(", text):
        end = end_of(text, found.end() - 1)
        most = text[found.end():end - 1].split(",")[0]
        body = end_of(text, text.index("(", end))
        if not (begin := re.match(r"\s*{", text[body:])):
            raise SystemExit("a kernel with launch bounds has no body")
        body += begin.end()
        result += text[at:found.start()] + text[end:body] + f" ::emulation::bound_threads({most});"
        at = body
    return result + text[at:]


INSTRUCTIONS = {  # PTX with numbered operands -> function, which takes them in this order
    r"cp\.async\.cg\.shared\.global \[%(\d)\], \[%(\d)\], 16, %(\d);": "copy_async<16>",
    r"cp\.async\.ca\.shared\.global \[%(\d)\], \[%(\d)\], 4;": "copy_async<4>",
    r"cp\.async\.commit_group;": "commit_copies",
    r"cp\.async\.wait_group %(\d);": "wait_for_copies",
    r"ldmatrix\.sync\.aligned\.m8n8\.x4\.shared\.b16 {%(\d), %(\d), %(\d), %(\d)}, \[%(\d)\];":
        "load_matrices<false>",
    r"ldmatrix\.sync\.aligned\.m8n8\.x4\.trans\.shared\.b16 {%(\d), %(\d), %(\d), %(\d)}, \[%(\d)\];":
        "load_matrices<true>",
    r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.f16\.f16\.f32 "
    r"{%(\d), %(\d), %(\d), %(\d)}, {%(\d), %(\d), %(\d), %(\d)}, {%(\d), %(\d)}, {%\1, %\2, %\3, %\4};":
        "multiply_matrices<__half>",
    r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.bf16\.bf16\.f32 "
    r"{%(\d), %(\d), %(\d), %(\d)}, {%(\d), %(\d), %(\d), %(\d)}, {%(\d), %(\d)}, {%\1, %\2, %\3, %\4};":
        "multiply_matrices<__nv_bfloat16>",
}


def instruction(statement):
    """The call for the text between the brackets of asm(...)."""
    ptx = "".join(re.findall(r'"([^"]*)"', statement[:statement.find(":")]))
    if not ptx:
        return None  # only a barrier for the compiler
    for constraint in re.findall(r'"([=+&%]*[a-zA-Z]+)"\s*\(', statement):
        if not re.fullmatch("[=+]?[rlfn]", constraint):
            raise SystemExit(f"no such constraint is emulated: {constraint}")
    operands = []
    for found in re.finditer(r'"[=+]?[rlfn]"\s*\(', statement):
        end = end_of(statement, found.end() - 1)
        operands.append(statement[found.end():end - 1])
    for form, function in INSTRUCTIONS.items():
        if match := re.fullmatch(form, ptx):
            used = ", ".join(operands[int(number)] for number in match.groups())
            return f"::emulation::{function}({used});"
    raise SystemExit(f"no such instruction is emulated: {ptx}")


def instructions(text):
    result, at = "", 0
    for found in re.finditer(r"\basm(?: volatile)?\s*\(", text):
        end = end_of(text, found.end() - 1)
        call = instruction(text[found.end():end - 1])
        if call:
            result += text[at:found.start()] + call
            at = end + 1  # its semicolon
    return result + text[at:]


def main():
    source, result = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        text = file.read()
    text = instructions(launch_bounds(shared_memory(launches(text))))
    os.makedirs(os.path.dirname(result), exist_ok=True)
    with open(result, "w", encoding="utf-8") as file:
        if result.endswith(".cpp"):
            file.write('#include "emulation/device_code.h"\n')
        file.write(f'#line 1 "{source}"\n{text}')


main()
