#!/usr/bin/env bash
# Checks preheat on a machine with an NVIDIA GPU: its tests, the sanitizers of CUDA, real training
# runs, the effect of warmup over seeds, and how fast it all is. Runs from an unpacked bundle
# (scripts/bundle.sh) or from a checkout with a build; needs no network; under 8 minutes on an H100.
#
#   scripts/gpu_check.sh [--only STAGE[,STAGE]...] [--out DIR] [--quick]
#
#   --only   these stages alone; `sanitizer` is short for all that begin so
#   --out    where logs and figures go (default: gpu-check)
#   --quick  two seeds, memcheck only, no torch.compile
#
# Ends with a table of PASS, FAIL and NOT RUN; the exit code is 1 where anything failed.
set -euo pipefail

seeds=${SEEDS:-5}
accuracy_needed=93.0                 # per cent, the mean over the seeds
p_needed=0.05                        # of the exact McNemar test, without against with warmup
sanitizer_filter=${SANITIZER_FILTER:-Kernels*}
sanitizer_limit=${SANITIZER_LIMIT:-60}  # seconds for each tool
stage_limit=${STAGE_LIMIT:-150}         # seconds for any other program
cuda=13
cudnn=9

stages=(
  libraries machine tests
  sanitizer-memcheck sanitizer-racecheck sanitizer-initcheck sanitizer-synccheck
  train compare bench-update bench-step peer-update peer-step
)

usage() {
  echo "gpu_check.sh: $1" >&2
  echo "usage: gpu_check.sh [--only STAGE[,STAGE]...] [--out DIR] [--quick]" >&2
  echo "stages: ${stages[*]}" >&2
  exit 2
}

out=gpu-check
only=()
quick=no
while (($# > 0)); do
  case $1 in
    --only)
      [[ -n ${2:-} ]] || usage "--only needs a stage"
      IFS=, read -r -a only <<<"$2"
      shift
      ;;
    --out)
      [[ -n ${2:-} ]] || usage "--out needs a folder"
      out=$2
      shift
      ;;
    --quick) quick=yes ;;
    *) usage "unknown argument '$1'" ;;
  esac
  shift
done

is_wanted() {
  local name
  ((${#only[@]} == 0)) && return 0
  for name in "${only[@]}"; do
    [[ $1 == "$name" || $1 == "$name"-* ]] && return 0
  done
  return 1
}
for name in "${only[@]}"; do
  [[ " ${stages[*]}" == *" $name "* || " ${stages[*]}" == *" $name-"* || "${stages[-1]}" == "$name" ]] ||
    usage "there is no stage '$name'"
done

mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for build in bin build/release; do
  [[ -x $build/preheat ]] && break
done
preheat=$build/preheat
gpu_tests=$build/preheat_gpu_tests
[[ -x $gpu_tests ]] || gpu_tests=$build/tests/preheat_gpu_tests
for program in "$preheat" "$gpu_tests"; do
  [[ -x $program ]] || usage "no $program; unpack a bundle, or build with CUDA"
done
[[ $quick == no ]] || seeds=${SEEDS:-2}

# --- Stages ---------------------------------------------------------------------------------------
# Each is a function of its name, with - written as _. It returns 0 where it passed and 1 where it
# failed; not_run says why there was nothing to judge. What it leaves in `remark` stands in the table.

remark=
no_device=
not_run() {
  remark=$1
  return 77
}

# Our programs see our libraries; nobody else does.
library_path=${LD_LIBRARY_PATH:-}
[[ ! -d lib ]] || library_path=$PWD/lib${library_path:+:$library_path}
ours() {
  LD_LIBRARY_PATH=$library_path timeout --kill-after=5 "$stage_limit" "$@"
}

# A command into a log and onto the terminal; says how it failed.
logged() {
  local log=$1 code=0
  shift
  "$@" >"$log" 2>&1 || code=$?
  tail -n 15 "$log" | sed 's/^/  /'
  ((code == 0)) && return 0
  remark="exit code $code"
  ((code == 124 || code == 137)) && remark="stopped at its time limit"
  remark+=": $(grep -v '^[[:space:]]*$' "$log" | tail -n 1 | cut -c 1-100)"
  return 1
}

library_folders() {
  printf '%s\n' "/usr/local/cuda/lib64" "/usr/local/cuda/targets/x86_64-linux/lib"
  python3 - 2>/dev/null <<'PYTHON' || true
import glob, sys
for path in sys.path:
    for folder in sorted(glob.glob(path + "/nvidia/*/lib")):
        print(folder)
PYTHON
}

is_loadable() {
  local folder
  while read -r folder; do
    [[ -n $folder && -e $folder/$1 ]] && return 0
  done < <(tr : '\n' <<<"$library_path")
  # Not into grep -q: it would end ldconfig, and pipefail would take that for a failure.
  grep -q "[[:space:]]$1 " < <(PATH=$PATH:/sbin ldconfig -p 2>/dev/null)
}

libraries() {
  local name folder still=()
  for name in "libcudnn.so.$cudnn" "libcublas.so.$cuda" "libcublasLt.so.$cuda" "libnvrtc.so.$cuda"; do
    if is_loadable "$name"; then
      echo "  $name: in the loader's path"
      continue
    fi
    while read -r folder; do
      [[ -e $folder/$name ]] || continue
      library_path+=${library_path:+:}$folder
      echo "  $name: taken from $folder"
      break
    done < <(library_folders)
    is_loadable "$name" || echo "  $name: not found"
  done
  echo "  LD_LIBRARY_PATH=$library_path"
  mapfile -t still < <(LD_LIBRARY_PATH=$library_path ldd "$preheat" "$gpu_tests" |
    awk '/not found/ { print $1 }' | sort -u)
  ((${#still[@]} == 0)) && return 0
  remark="not found: ${still[*]}"
  return 1
}

query_gpu() {
  local fields
  # One query a group: an unknown field, as older drivers have some, spoils its whole query.
  for fields in index,name,uuid driver_version,vbios_version memory.total,memory.used \
    clocks.sm,clocks.max.sm clocks.mem,clocks.max.mem ecc.mode.current,mig.mode.current \
    power.draw,power.limit,temperature.gpu persistence_mode,compute_mode,pstate \
    clocks_event_reasons.active; do
    nvidia-smi --query-gpu="$fields" --format=csv 2>/dev/null || true
  done
  nvidia-smi -q -d PERFORMANCE 2>/dev/null || true
}

machine() {
  {
    uname -srm
    grep -m 1 PRETTY_NAME /etc/os-release || true
    grep -m 1 'model name' /proc/cpuinfo || true
    nproc
    nvcc --version 2>/dev/null | tail -n 2 || true
    query_gpu
  } >"$out/machine.txt"
  ours "$preheat" info >"$out/info.txt" 2>&1 || true
  sed 's/^/  /' "$out/info.txt"
  if ! { nvidia-smi -L 2>/dev/null | grep GPU >"$out/gpus.txt"; } && [[ ! -e /dev/nvidia0 ]]; then
    no_device="no CUDA device"
    remark=$no_device
    return 1
  fi
  local name seen
  name=$(head -n 1 "$out/gpus.txt" | sed 's/^GPU [0-9]*: //; s/ (UUID.*//')
  seen=$(sed -n 's/^cuda  *//p' "$out/info.txt")
  remark=$seen
  [[ -n $seen && $seen == *"$name"* ]] && return 0
  remark="there is ${name:-a device}, and preheat says: ${seen:-nothing}"
  return 1
}

# How many tests of a log of googletest passed, were skipped and failed.
tests_of() {
  awk '/^\[  PASSED  \]/ { passed = $4 } /^\[  SKIPPED \] [0-9]/ { skipped = $4 }
       /^\[  FAILED  \] [0-9]/ { failed = $4 }
       END { printf "%d %d %d\n", passed, skipped, failed }' "$1"
}

# A run of tests in which none passed has shown nothing.
judge_tests() {
  local passed skipped failed
  read -r passed skipped failed < <(tests_of "$1")
  remark="$passed passed, $skipped skipped, $failed failed${remark:+; $remark}"
  ((passed > 0 && failed == 0))
}

tests() {
  local code=0
  logged "$out/tests.log" ours "$gpu_tests" --gtest_output="json:$out/tests.json" || code=1
  judge_tests "$out/tests.log" && ((code == 0))
}

sanitizer() {
  local tool=$1 log=$out/sanitizer-$1.log program code=0
  program=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
  [[ -n $program ]] || { not_run "compute-sanitizer is missing"; return; }
  [[ $quick == no || $tool == memcheck ]] || { not_run "--quick"; return; }
  stage_limit=$sanitizer_limit logged "$log" ours "$program" --tool "$tool" --error-exitcode 9 \
    --print-limit 20 "$gpu_tests" --gtest_filter="$sanitizer_filter" || code=1
  judge_tests "$log" && ((code == 0))
}
sanitizer_memcheck() { sanitizer memcheck; }
sanitizer_racecheck() { sanitizer racecheck; }
sanitizer_initcheck() { sanitizer initcheck; }
sanitizer_synccheck() { sanitizer synccheck; }

# The value of a number in a summary.json.
number_in() {
  sed -n "s/^.*\"$2\": *\([-+.0-9eE]*\).*$/\1/p" "$1" | head -n 1
}

train() {
  local seed folder accuracies=() code=0
  rm -rf "$out/train"
  for ((seed = 0; seed < seeds; ++seed)); do
    folder=$out/train/$seed
    logged "$out/train-$seed.log" ours "$preheat" train configs/small-cnn.yaml --device cuda \
      --seed "$seed" --out "$folder" --set data.batch_size=512 --set "train.length=10 epochs" \
      --set "train.eval_every=10 epochs" --set train.precision=bf16 --set schedule.base_lr=0.2 \
      --set schedule.warmup.shape=linear --set "schedule.warmup.length=2 epochs" \
      --set schedule.decay.shape=cosine --set optimizer.nesterov=true \
      --set optimizer.weight_decay=5e-4 || return 1
    accuracies+=("$(number_in "$folder/summary.json" test_accuracy)")
  done
  remark=$(printf '%s\n' "${accuracies[@]}" | awk -v needed="$accuracy_needed" '
    { sum += $1; if (NR == 1 || $1 < least) least = $1; if ($1 > most) most = $1 }
    END { printf "%.2f %% (%.2f .. %.2f) over %d seeds, needed %.1f %%", 100 * sum / NR, 100 * least,
                 100 * most, NR, needed
          exit !(100 * sum / NR >= needed) }') || code=1
  remark+=", $(number_in "$folder/summary.json" images_per_second | cut -d . -f 1) images/s"
  return "$code"
}

compare() {
  local log=$out/compare.log p
  rm -rf "$out/compare"
  logged "$log" ours "$preheat" compare configs/nan-without-warmup.yaml --device cuda \
    --out "$out/compare" || return 1
  p=$(sed -n 's/.*exact McNemar p = //p' "$log" | head -n 1)
  remark=$(awk '$1 == "no-warmup" || $1 == "warmup" { if ($2 ~ /^[0-9]+$/) printf "%s %d of %d failed, ", $1, $3, $2 }' "$log")
  remark+="p = ${p:-?}"
  awk -v p="${p:-1}" -v most="$p_needed" 'BEGIN { exit !(p < most) }'
}

bench_update() {
  logged "$out/bench-update.log" ours "$preheat" bench update --json "$out/bench-update.json"
}

bench_step() {
  local config
  for config in small-cnn resnet20; do
    logged "$out/bench-step-$config.log" ours "$preheat" bench step "configs/$config.yaml" \
      --device cuda --json "$out/bench-step-$config.json" || return 1
  done
  query_gpu >"$out/machine-after-benches.txt"
}

needs_torch() {
  python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null ||
    { not_run "python3 has no torch with CUDA"; return; }
}

peer_update() {
  needs_torch || return
  logged "$out/peer-update.log" timeout --kill-after=5 "$stage_limit" \
    python3 scripts/peers/gpu_update.py --json "$out/peer-update.json"
}

peer_step() {
  local arguments=()
  needs_torch || return
  [[ $quick == no ]] || arguments=(--quick)
  logged "$out/peer-step.log" timeout --kill-after=5 "$stage_limit" \
    python3 scripts/peers/gpu_step.py --json "$out/peer-step.json" "${arguments[@]}"
}

# --- The run --------------------------------------------------------------------------------------

rows=()
failed=0
unrun=0
started=$SECONDS
# A stage of its own is of no use without what the first two find out.
for stage in "${stages[@]}"; do
  [[ $stage == libraries || $stage == machine ]] || is_wanted "$stage" || continue
  echo "== $stage"
  remark=
  code=0
  begin=$SECONDS
  if [[ -n $no_device ]]; then
    not_run "$no_device" || code=$?
  else
    "${stage//-/_}" || code=$?
  fi
  case $code in
    0) verdict=PASS ;;
    77) verdict="NOT RUN" && unrun=$((unrun + 1)) ;;
    *) verdict=FAIL && failed=1 ;;
  esac
  rows+=("$(printf '%-20s  %-7s  %5d s  %s' "$stage" "$verdict" $((SECONDS - begin)) "$remark")")
  echo "  $verdict${remark:+: $remark}"
done

echo
{
  printf '%-20s  %-7s  %7s\n' stage verdict time
  printf '%s\n' "${rows[@]}"
  verdict=PASS
  ((failed == 0)) || verdict=FAIL
  printf '%-20s  %-7s  %5d s  %s\n' all "$verdict" $((SECONDS - started)) "$unrun not run"
} | tee "$out/summary.txt"
echo "logs and figures: $out"
exit "$failed"
