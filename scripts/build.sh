#!/usr/bin/env bash
# Sets up and builds in build/release: scripts/build.sh TARGET [argument of setup.sh]...
# TARGET is preheat, preheat_tests or all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${1:-all}
scripts/setup.sh "${@:2}"
generator=()
# A build folder keeps the generator it was made with.
[[ -f build/release/CMakeCache.txt ]] || generator=(-G Ninja)
cmake --preset release "${generator[@]}"
cmake --build --preset release --target "$target" --parallel "$(nproc)"
