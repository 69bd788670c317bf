#!/usr/bin/env bash
# Builds preheat and shows what warmup does: the same network, data and base learning rate, over
# several seeds, without and with it. Arguments go to `preheat compare`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/build.sh preheat
exec build/release/preheat compare configs/nan-without-warmup.yaml --device cpu "$@"
