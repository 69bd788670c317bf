#!/usr/bin/env bash
# Builds preheat, runs clang-format and clang-tidy over its code, and runs its tests. A failed stage
# fails the run, but only a failed build ends it early. The last line is ctest's summary.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=()
stage() {
  local name=$1
  shift
  echo "== $name"
  "$@" || failed+=("$name")
}

sources() {
  local folders=(src tests)
  [[ ! -d kernels ]] || folders+=(kernels)
  find "${folders[@]}" -type f \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -print0
}

check_format() {
  sources | xargs -0 clang-format --dry-run --Werror
}

lint() {
  local left_out=()
  # Built without CUDA: its headers are missing.
  grep -q PREHEAT_HAS_CUDA build/release/compile_commands.json || left_out=(! -path 'src/backend/cuda/*')
  find src -type f -name '*.cpp' "${left_out[@]}" -print0 |
    xargs -0 -n 1 -P "$(nproc)" clang-tidy --quiet -p build/release
}

run_tests() {
  ctest --test-dir build/release --output-on-failure -j2 | tee build/release/test.log
}

# Without Chromium, as where Debian has none, the tests of pages are skipped, visibly.
command -v chromium chromium-browser >/dev/null || scripts/setup.sh --with-browser ||
  echo "test.sh: no Chromium: what needs a browser is skipped"
stage build scripts/build.sh all --with-lint
if ((${#failed[@]} > 0)); then
  echo "failed: build"
  exit 1
fi
stage clang-format check_format
stage clang-tidy lint
stage ctest run_tests

echo
((${#failed[@]} == 0)) || echo "failed: ${failed[*]}"
grep 'tests passed' build/release/test.log
((${#failed[@]} == 0))
