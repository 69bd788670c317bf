#!/usr/bin/env bash
# Builds preheat and shows what warmup does: it trains the same network on the same data at the same
# base learning rate, without and with warmup, over several seeds. Arguments are passed on to
# `preheat compare`, which runs in the caller's folder: paths in them are relative to it.
set -euo pipefail

root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
"$root/scripts/build.sh" preheat
exec "$root/build/release/preheat" compare "$root/configs/nan-without-warmup.yaml" --device cpu "$@"
