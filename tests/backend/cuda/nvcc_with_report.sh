#!/usr/bin/env bash
# nvcc's launcher: runs the command and leaves what ptxas reports of each kernel (registers, spills)
# in OBJECT.ptxas for the tests.
for ((i = 1; i < $#; ++i)); do
  [[ ${!i} != -o ]] || object=${*:i+1:1}
done
"$@" -Xptxas -v 2>"$object.ptxas"
code=$?
grep -vE '^ptxas info|^ +[0-9]+ bytes stack frame' "$object.ptxas" >&2
exit "$code"
