#!/usr/bin/env bash
# Builds preheat and shows what warmup does: it trains the same network on the same data at the same
# base learning rate, without and with warmup, over several seeds. Arguments are passed on to
# `preheat compare`.
set -euo pipefail

# The folders of --out and --resume are relative to the caller's, not to ours.
absolute() {
  [[ -z $1 ]] || realpath -m -- "$1"
}
arguments=()
while (($# > 0)); do
  case $1 in
    --out=* | --resume=*) arguments+=("${1%%=*}" "$(absolute "${1#*=}")") ;;
    --out | --resume)
      arguments+=("$1")
      if (($# > 1)); then
        arguments+=("$(absolute "$2")")
        shift
      fi
      ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/build.sh preheat
exec build/release/preheat compare configs/nan-without-warmup.yaml --device cpu "${arguments[@]}"
