#!/usr/bin/env bash
# Sets up and builds build/release; the arguments go to setup.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh "$@"
generator=()
# A build folder keeps the generator it was made with.
[[ -f build/release/CMakeCache.txt ]] || generator=(-G Ninja)
cmake --preset release "${generator[@]}"
cmake --build --preset release --parallel "$(nproc)"
