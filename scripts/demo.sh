#!/usr/bin/env bash
# Builds preheat and shows what warmup does: it trains the same network on the same data at the same
# base learning rate, without and with warmup, over several seeds. Arguments are passed on to
# `preheat compare`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/build.sh preheat
exec build/release/preheat compare configs/nan-without-warmup.yaml --device cpu "$@"
