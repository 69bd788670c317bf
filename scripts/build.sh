#!/usr/bin/env bash
# Installs what is missing and builds in build/release.
#
#   scripts/build.sh [TARGET [ARGUMENT_OF_SETUP.SH]...]
#
# TARGET is preheat, preheat_tests or all (the default).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${1:-all}
scripts/setup.sh "${@:2}"
generator=()
# An existing build folder keeps its generator.
[[ -f build/release/CMakeCache.txt ]] || generator=(-G Ninja)
cmake --preset release "${generator[@]}"
cmake --build --preset release --target "$target" --parallel "$(nproc)"
