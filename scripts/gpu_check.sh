#!/usr/bin/env bash
# Checks preheat on a machine with an NVIDIA GPU: tests, CUDA's sanitizers, real training runs, the
# effect of warmup over seeds, and speed. Runs from an unpacked bundle (scripts/bundle.sh) or from a
# checkout with a build. Needs no network and should take about 8 minutes on an H100 or H200.
#
#   scripts/gpu_check.sh [--only STAGE[,STAGE]...] [--out DIR] [--archive FILE] [--budget SECONDS]
#                        [--quick]
#
#   --only     run only these stages; `sanitizer` stands for its four tools, `bench` for all benches
#   --out      folder for logs and figures (default: gpu-check)
#   --archive  pack them into this one .tar.gz too, without checkpoints and the runs of the map
#   --budget   after so many seconds, stop what runs and leave out the rest (default: no limit)
#   --quick    two seeds, and memcheck as the only sanitizer
#
# Ends with a table of PASS, FAIL and NOT RUN, which summary.txt in the folder has row by row from the
# start; the exit code is 1 if anything failed.
set -euo pipefail
export LC_ALL=C  # a decimal point, not a comma

seeds=5
accuracy_needed=0.933  # the mean over the seeds
sanitizer_limit=60     # seconds for each tool
racecheck_limit=120    # it is the slowest
program_limit=120      # seconds for any other program
compile_limit=240      # seconds for PyTorch's steps: it compiles some of them
sanitizers=(memcheck racecheck initcheck synccheck)
# Every kernel, without the tests that make a thousand launches or process millions of numbers.
sanitized='Kernels*:-KernelsNormalize.LargeBatches:KernelsNormalize.F*PlainLoop:KernelsNormalize.S*PlainLoop'
sanitized+=':KernelsLoss.AgreesWithTheFormulas:KernelsSgdMomentum.ALargeArena:*.SumsInFp32AndInTheSameOrderEveryTime'
# Correctness before speed, and PyTorch's figures before the benches that print them beside ours. What
# is last goes first if the budget is short.
stages=(environment machine tests "${sanitizers[@]}" accuracy nan peers bench-step bench-update
  bench-repeat bench-bytes map bench-schedule)

usage() {
  echo "gpu_check.sh: $1" >&2
  echo "usage: gpu_check.sh [--only STAGE[,STAGE]...] [--out DIR] [--archive FILE]" \
    "[--budget SECONDS] [--quick]" >&2
  echo "stages: ${stages[*]}" >&2
  exit 2
}

out=gpu-check
archive=
budget=$((1 << 30))
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
    --archive)
      [[ -n ${2:-} ]] || usage "--archive needs a file"
      archive=$(realpath -m -- "$2")
      shift
      ;;
    --budget)
      [[ ${2:-} =~ ^[1-9][0-9]{0,8}$ ]] || usage "--budget needs a number of seconds"
      budget=$2
      shift
      ;;
    --quick) quick=yes seeds=2 ;;
    *) usage "unknown argument '$1'" ;;
  esac
  shift
done

# Without --only, every stage. The first two always run: the others depend on what they find out.
wanted=" ${stages[*]:0:2} "
((${#only[@]} > 0)) || wanted=" ${stages[*]} "
for name in "${only[@]}"; do
  case $name in
    sanitizer) wanted+="${sanitizers[*]} " ;;
    bench) wanted+="bench-update bench-step bench-schedule bench-repeat bench-bytes " ;;
    *)
      [[ " ${stages[*]} " == *" $name "* ]] || usage "there is no stage '$name'"
      wanted+="$name "
      ;;
  esac
done

mkdir -p "$out"
out=$(cd "$out" && pwd)
# What an earlier run left: PyTorch's figures would be taken for this run's, and plans of convolutions
# for new ones. The home folder's plans are not used either, and it may be read-only.
rm -rf "$out"/peer-*.json "$out/cache"
export XDG_CACHE_HOME=$out/cache
cd "$(dirname "${BASH_SOURCE[0]}")/.."
preheat=bin/preheat
gpu_tests=bin/preheat_gpu_tests
if [[ ! -x $preheat ]]; then
  preheat=build/release/preheat
  gpu_tests=build/release/tests/preheat_gpu_tests
fi
for program in "$preheat" "$gpu_tests"; do
  [[ -x $program ]] || usage "no $program; unpack a bundle, or build with CUDA"
done

# --- Stages ---------------------------------------------------------------------------------------
# Each stage is a function of the same name, with - written as _. Its output goes to its log. It
# returns 0 if it passed, 1 if it failed, and the value of not_run if there was nothing to judge.
# `set -e` has no effect inside these functions. The table shows the text that a stage leaves in
# `remark`.

remark=
no_device=
not_run() {
  remark=$1
  return 77
}

over_budget="the budget of $budget s is used up"

# Runs a program under a time limit; if it fails, `remark` says how. A program that the budget ends
# has shown nothing.
limited() {
  local limit=$1 left=$((budget - SECONDS)) code=0
  shift
  ((left > 0)) || { not_run "$over_budget"; return; }
  timeout --kill-after=5 $((left < limit ? left : limit)) "$@" || code=$?
  case $code in
    0) return 0 ;;
    124 | 137)
      ((SECONDS < budget)) || { not_run "$over_budget"; return; }
      remark="stopped after $limit s"
      ;;
    *) remark="exit code $code" ;;
  esac
  return 1
}

# Only our own programs see our libraries.
library_path=${LD_LIBRARY_PATH:-}
[[ ! -d lib ]] || library_path=$PWD/lib${library_path:+:$library_path}
ours() {
  LD_LIBRARY_PATH=$library_path limited "$program_limit" "$@"
}

library_folders() {
  printf '%s\n' /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib
  python3 - <<'PYTHON'
import glob, sys
for path in sys.path:
    print(*sorted(glob.glob((path or ".") + "/nvidia/*/lib")), sep="\n")
PYTHON
}

is_loadable() {
  local folder folders
  IFS=: read -r -a folders <<<"$library_path"
  for folder in "${folders[@]}"; do
    [[ ! -e $folder/$1 ]] || return 0
  done
  # Not piped into grep -q, which would end ldconfig early: pipefail would count that as a failure.
  grep -q "[[:space:]]$1 " < <(PATH=$PATH:/sbin ldconfig -p)
}

# preheat opens cuBLAS, and cuDNN its own libraries and what of CUDA they need, by name when they are
# first used: all must be on the path. The names have the major version of the CUDA that preheat was
# built with.
environment() {
  local name folder names missing=()
  mapfile -t names < <(grep -aoE 'libcublas(Lt)?\.so\.[0-9]+' "$preheat" | sort -u)
  ((${#names[@]} > 0)) || { remark="$preheat was built without CUDA"; return 1; }
  for name in libcudnn.so.9 "${names[@]}" "libnvrtc.so.${names[0]##*.}"; do
    if is_loadable "$name"; then
      echo "$name: on the loader's path"
      continue
    fi
    while read -r folder; do
      [[ -n $folder && -e $folder/$name ]] || continue
      library_path+=${library_path:+:}$folder
      echo "$name: taken from $folder"
      break
    done < <(library_folders)
    is_loadable "$name" || missing+=("$name")
  done
  echo "LD_LIBRARY_PATH=$library_path"
  mapfile -t -O "${#missing[@]}" missing < <(LD_LIBRARY_PATH=$library_path ldd "$preheat" \
    "$gpu_tests" | awk '/not found/ { print $1 }')
  ((${#missing[@]} > 0)) || return 0
  remark="not found: $(printf '%s\n' "${missing[@]}" | sort -u | paste -s -d ' ')"
  echo "$remark"
  return 1
}

query_gpu() {
  local fields answer
  # One query per group: a field that the driver does not know makes its whole query fail.
  for fields in name,driver_version memory.total,memory.used clocks.sm,clocks.max.sm \
    clocks.mem,clocks.max.mem ecc.mode.current mig.mode.current power.draw,power.limit \
    temperature.gpu clocks_event_reasons.active clocks_throttle_reasons.active; do
    if answer=$(nvidia-smi --query-gpu="$fields" --format=csv); then
      echo "$answer"
    fi
  done
}

machine() {
  local name seen info
  uname -srm
  grep -m 1 PRETTY_NAME /etc/os-release
  grep -m 1 'model name' /proc/cpuinfo
  if name=$(nvidia-smi --query-gpu=name --format=csv,noheader); then
    name=${name%%$'\n'*}
    query_gpu
  else
    name=
  fi
  info=$(ours "$preheat" info) || { remark="preheat info: exit code not 0"; return 1; }
  echo "$info"
  seen=$(sed -n 's/^cuda  *//p' <<<"$info")
  remark=$seen
  [[ -z $name || $seen != *"$name"* ]] || return 0
  [[ -n $name || -e /dev/nvidiactl ]] || no_device="no CUDA device"
  remark="${name:-no GPU in nvidia-smi}; preheat says: ${seen:-nothing}"
  return 1
}

# Runs googletest, possibly under a tool. There is a device here, so a test may be skipped for one
# reason only: the device is too old for it.
run_tests() {
  local log=$1 code=0 passed skipped too_old failed
  shift
  ours "$@" --gtest_brief=1 || code=$?
  read -r passed skipped too_old failed < <(awk '
    /^\[  PASSED  \]/ { passed = $4 } /^\[  SKIPPED \] [0-9]/ { skipped = $4 }
    /^needs a device of compute capability/ { ++too_old } /^\[  FAILED  \] [^0-9]/ { ++failed }
    END { printf "%d %d %d %d\n", passed, skipped, too_old, failed }' "$log")
  remark="$passed passed, $skipped skipped, $failed failed${remark:+; $remark}"
  ((failed == 0)) || return 1
  ((code == 0)) || return "$code"
  ((passed > 0 && skipped == too_old))
}

tests() {
  run_tests "$out/tests.log" "$gpu_tests"
}

sanitizer() {
  local tool=$1 program code
  [[ $quick == no || $tool == memcheck ]] || { not_run "--quick"; return; }
  program=$(PATH=$PATH:/usr/local/cuda/bin command -v compute-sanitizer) ||
    { not_run "compute-sanitizer is missing"; return; }
  program_limit=$sanitizer_limit run_tests "$out/$tool.log" "$program" --tool "$tool" \
    --error-exitcode "${errors_code:-9}" --print-limit 0 "$gpu_tests" --gtest_filter="$sanitized" || {
    code=$?
    # Virtual machines of some kinds keep such tools from the device.
    ! grep -q 'Device not supported' "$out/$tool.log" ||
      { not_run "compute-sanitizer does not support this device"; return; }
    return "$code"
  }
}
memcheck() { sanitizer memcheck; }
racecheck() { sanitizer_limit=$racecheck_limit sanitizer racecheck; }
# The tests write NaN everywhere first, which initcheck would take for the kernels' own writes. What
# it says of copies to the host does not count: some tests look at all of an array of which the kernel
# writes a part.
initcheck() {
  PREHEAT_LEAVE_UNWRITTEN=1 errors_code=0 sanitizer initcheck || return
  ! grep -q 'Uninitialized __global__' "$out/initcheck.log" ||
    { remark+="; a kernel reads what was never written"; return 1; }
}
synccheck() { sanitizer synccheck; }

# Linear warmup, then cosine, as in the configuration.
accuracy() {
  local seed code
  rm -rf "$out/accuracy"
  mkdir "$out/accuracy"
  for ((seed = 0; seed < seeds; ++seed)); do
    ours "$preheat" train configs/small-cnn.yaml --device cuda --quiet --seed "$seed" \
      --out "$out/accuracy/$seed" --set data.batch_size=512 --set train.precision=bf16 \
      --set schedule.base_lr=0.2 --set 'schedule.warmup.length=2 epochs' \
      --set optimizer.nesterov=true --set optimizer.weight_decay=5e-4 \
      --set 'train.length=10 epochs' || { code=$?; remark+=", seed $seed"; return "$code"; }
  done
  remark=$(python3 - "$accuracy_needed" "$out"/accuracy/*/summary.json <<'PYTHON'
import json, sys
needed, runs = float(sys.argv[1]), [json.load(open(path)) for path in sys.argv[2:]]
accuracies = [run["test_accuracy"] or 0 for run in runs]  # null where there was none
mean = sum(accuracies) / len(accuracies)
print(f"mean {mean:.4f} ({min(accuracies):.4f} .. {max(accuracies):.4f}) of {len(runs)} seeds, "
      f"needed {needed}; " + ", ".join(f"{run['wall_seconds']:.2f}" for run in runs) + " s")
sys.exit(not mean >= needed)
PYTHON
  )
}

nan() {
  rm -rf "$out/nan"
  ours "$preheat" compare configs/nan-without-warmup.yaml --device cuda --out "$out/nan" || return
  remark=$(python3 - "$out/nan/compare.json" <<'PYTHON'
import json, sys
arms = {arm["name"]: arm for arm in json.load(open(sys.argv[1]))["arms"]}
print(", ".join(f"{name}: {arm['failures']} of {arm['n']} failed" for name, arm in arms.items()))
without, warmup = arms["no-warmup"], arms["warmup"]
# Which seeds fail depends on the last bits. That warmup saves most of them does not.
sys.exit(not (2 * without["failures"] > without["n"] > 4 * warmup["failures"]))
PYTHON
  )
}

# 640 runs of 400 updates: 16 rates by 8 warmup lengths, 5 seeds.
map() {
  rm -rf "$out/map"
  cat >"$out/map.yaml" <<'YAML'
name: map
data: {dataset: fashion-mnist, batch_size: 128}
model:
  layers:
    - conv: {out: 32, activation: relu}
    - conv: {out: 32, activation: relu}
    - max_pool
    - conv: {out: 64, activation: relu}
    - conv: {out: 64, activation: relu}
    - max_pool
    - linear: {out: 256, activation: relu}
    - linear: {out: 10}
schedule: {warmup: {shape: linear}, decay: {shape: constant}}
train: {length: 400 steps, eval_every: 400 steps, precision: bf16}
sweep:
  seeds: 0..4
  axes:
    schedule.base_lr: {log: [0.01, 1.81, 16]}
    schedule.warmup.length: [0 steps, 2 steps, 4 steps, 8 steps, 16 steps, 32 steps, 64 steps, 128 steps]
YAML
  local begin=${EPOCHREALTIME/./}
  program_limit=240 ours "$preheat" sweep "$out/map.yaml" --device cuda --quiet --out "$out/map" || return
  remark="$(((${EPOCHREALTIME/./} - begin) / 1000)) ms"
  remark+=$(python3 - "$out/map/sweep.json" <<'PYTHON'
import json, sys
cells = json.load(open(sys.argv[1]))["cells"]
print(f" for {sum(c['n'] for c in cells)} runs, {sum(c['failures'] for c in cells)} failed")
PYTHON
  )
}

# With PyTorch's times beside ours if this run has measured them.
bench_update() {
  local beside=()
  [[ ! -f $out/peer-update.json ]] || beside=(--peers "$out/peer-update.json")
  ours "$preheat" bench update --device cuda --json "$out/update.json" --html "$out/update.html" \
    "${beside[@]}"
}

# Steps that PyTorch is measured on too, the first also with many replicas. ResNet-20 in bf16 runs
# twice: the second time its convolutions are already planned, so the first update comes as early as
# it can. Two are also run with the fastest plans, deterministic or not. A goal that is missed is said
# and does not fail the stage.
bench_step() {
  local name config batch precision seconds replicas deterministic code beside=() files=()
  [[ ! -f $out/peer-step.json ]] || beside=(--peers "$out/peer-step.json")
  while read -r config batch precision seconds replicas deterministic; do
    name=step-$config-$batch-$precision
    [[ $deterministic == true ]] || name+=-fastest
    ours "$preheat" bench step "configs/$config.yaml" --device cuda --layers \
      --set data.batch_size="$batch" --set train.precision="$precision" \
      --set train.deterministic="$deterministic" --seconds "$seconds" --replicas "$replicas" \
      --json "$out/$name.json" --html "$out/$name.html" "${beside[@]}" \
      </dev/null || { code=$?; remark+=", $name"; return "$code"; }
    [[ " ${files[*]} " == *" $out/$name.json "* ]] || files+=("$out/$name.json")
  done <<'STEPS'
small-cnn 128  bf16 1   1,2,4,8,16,32,64 true
small-cnn 512  bf16 0.3 1                true
small-cnn 1024 bf16 0.3 1                true
small-cnn 128  tf32 0.3 1                true
small-cnn 1024 tf32 0.3 1                true
small-cnn 128  fp32 0.3 1                true
small-cnn 1024 fp32 0.3 1                true
resnet20  128  bf16 0.1 1                true
resnet20  128  bf16 0.5 1                true
resnet20  128  tf32 0.3 1                true
resnet20  128  fp32 0.3 1                true
small-cnn 128  bf16 0.3 1                false
resnet20  128  bf16 0.3 1                false
STEPS
  remark=$(python3 - "${files[@]}" <<'PYTHON'
import json, sys
runs = {path.rsplit("/step-", 1)[1][:-len(".json")]: json.load(open(path)) for path in sys.argv[1:]}
ms = {name: run["step_ms"]["median"] for name, run in runs.items()}
texts = [f"{name} {ms[name]:.4f} ms, first update after {run['first_update_seconds']:.2f} s"
         for name, run in runs.items()]

def goal(what, is_met, ratios):
    judged = [f"{name} " + (f"{ratio:.2f} {'met' if is_met(ratio) else 'missed'}" if ratio else "not known")
              for name, ratio in ratios.items()]
    texts.append(f"{what}: {', '.join(judged)}")

# Times ours; None if PyTorch has no figure in this mode.
def against(mode, *names):
    return {name: next((peer["ratio"] for peer in runs[name]["peers"]
                        if peer["name"].endswith(f", {mode}")), None) for name in names}

for precision in ("fp32", "tf32"):
    goal(f"{precision}, goal 1.2 times PyTorch's graph", lambda ratio: ratio >= 1.2,
         against(f"graph-{precision}", f"small-cnn-128-{precision}", f"small-cnn-1024-{precision}",
                 f"resnet20-128-{precision}"))
goal("goal 1.5 times PyTorch compiled", lambda ratio: ratio >= 1.5,
     against("compile-bf16", "small-cnn-128-bf16", "small-cnn-1024-bf16"))
goal("goal 2 times", lambda ratio: ratio >= 2, against("compile-bf16", "resnet20-128-bf16"))
goal("deterministic, goal at most 1.15 of the fastest", lambda ratio: ratio <= 1.15,
     {name: ms[name] / ms[f"{name}-fastest"] for name in ("small-cnn-128-bf16", "resnet20-128-bf16")})
print("; ".join(texts))
PYTHON
  )
}

bench_schedule() {
  ours "$preheat" bench schedule --device cuda --json "$out/schedule.json" \
    --html "$out/schedule.html"
}

# The same bench run twice must differ by no more than the spread that it reports, or 2 %, or 0.1 us:
# 2 % of an empty kernel's time is less than the timer resolves.
bench_repeat() {
  local turn
  for turn in 1 2; do
    ours "$preheat" bench update --device cuda --parameters 25000000 --tensors 100 \
      --json "$out/repeat-$turn.json" || return
  done
  remark=$(python3 - "$out/repeat-1.json" "$out/repeat-2.json" <<'PYTHON'
import json, sys
first, second = ({(r["variant"], r["how"], r["cold"]): r for r in json.load(open(path))["rows"]}
                 for path in sys.argv[1:])
worst, apart = 0, []
for key, a in first.items():
    b = second[key]
    if key[1] not in ("graph", "ceiling"):
        continue  # launches depend on the host's speed too
    allowed = max(a["largest_us"] - a["least_us"], b["largest_us"] - b["least_us"], 0.02 * a["us"], 0.1)
    worst = max(worst, abs(a["us"] - b["us"]) / a["us"])
    if abs(a["us"] - b["us"]) > allowed:
        apart.append(key[0])
print(f"medians differ by at most {100 * worst:.2f} %" + (", too far: " + ", ".join(apart) if apart else ""))
sys.exit(bool(apart))
PYTHON
  )
}

# The bytes that the bench counts must match those that the profiler sees at the memory within 2 %.
# The clocks stay as they are. So do the caches: were they emptied before a launch, the bytes that it
# leaves in them, 1 % of all, would never be counted. The profiler must not find PyTorch's libraries,
# some of which have the names of its own.
bench_bytes() {
  local program code=0
  program=$(PATH=$PATH:/usr/local/cuda/bin command -v ncu) || { not_run "ncu is missing"; return; }
  rm -f "$out/bytes.csv"
  limited "$program_limit" "$program" --metrics dram__bytes.sum --csv --print-units base \
    --log-file "$out/bytes.csv" --clock-control none --cache-control none --target-processes all \
    --kernel-name regex:'(^|:)update$' --launch-count 2 \
    env LD_LIBRARY_PATH="$library_path" "$preheat" bench update --device cuda --quick \
    --parameters 268435456 || code=$?
  ! grep -qs ERR_NVGPUCTRPERM "$out/bytes.csv" "$out/bench-bytes.log" ||
    { not_run "no permission to read the counters"; return; }
  ! grep -qs LibraryNotLoaded "$out/bytes.csv" "$out/bench-bytes.log" ||
    { not_run "ncu cannot load its libraries"; return; }
  ((code == 0)) || return "$code"
  remark=$(python3 - "$out/bytes.csv" <<'PYTHON'
import csv, sys
lines = [line for line in open(sys.argv[1]) if line.startswith('"')]
seen = [float(row["Metric Value"].replace(",", ""))
        for row in csv.DictReader(lines) if row["Metric Name"] == "dram__bytes.sum"]
counted = 20 * 268435456
if not seen:
    sys.exit("ncu saw no launch of the update")
ratio = sorted(seen)[len(seen) // 2] / counted
print(f"{ratio:.4f} of the {counted / 1e9:.2f} GB counted, {len(seen)} launches")
sys.exit(not abs(ratio - 1) <= 0.02)
PYTHON
  )
}

# One that fails in part has still written the figures that it has.
peers() {
  local name limit result code=0 failures=
  limited "$program_limit" python3 -c 'import torch; assert torch.cuda.is_available()' ||
    { not_run "python3 has no torch with CUDA"; return; }
  for name in step update; do
    limit=$program_limit
    [[ $name == update ]] || limit=$compile_limit
    limited "$limit" python3 "scripts/peers/$name.py" --json "$out/peer-$name.json" --device cuda || {
      result=$?
      failures+=" $name.py: $remark"
      ((code == 1)) || code=$result
    }
  done
  remark=${failures# }
  return "$code"
}

# --- The run --------------------------------------------------------------------------------------

failed=0
left_out=0
count=0
printf '%-14s  %7s  %s\n' stage seconds verdict >"$out/summary.txt"
add_row() {
  printf '%-14s  %7d  %-7s  %s\n' "$@" >>"$out/summary.txt"
}

for stage in "${stages[@]}"; do
  [[ $wanted == *" $stage "* ]] || continue
  echo "== $stage"
  log=$out/$stage.log
  remark=
  code=0
  begin=$SECONDS
  if [[ -n $no_device ]]; then
    not_run "$no_device" >"$log" || code=$?
  elif ((SECONDS >= budget)); then
    not_run "$over_budget" >"$log" || code=$?
  else
    "${stage//-/_}" >"$log" 2>&1 || code=$?
  fi
  case $code in
    0) verdict=PASS ;;
    77) verdict="NOT RUN" left_out=$((left_out + 1)) ;;
    *) verdict=FAIL failed=1 ;;
  esac
  count=$((count + 1))
  if [[ $stage == environment ]]; then
    sed 's/^/  /' "$log"
  elif [[ $verdict == FAIL ]]; then
    tail -n 20 "$log" | sed 's/^/  /'
  fi
  echo "  $verdict${remark:+: $remark}"
  add_row "$stage" $((SECONDS - begin)) "$verdict" "$remark"
done

verdict=PASS
((left_out < count)) || verdict="NOT RUN"
((failed == 0)) || verdict=FAIL
add_row all "$SECONDS" "$verdict" "$left_out of $count stages NOT RUN"
echo
cat "$out/summary.txt"
echo "logs and figures: $out"
if [[ -n $archive ]]; then
  mkdir -p "$(dirname "$archive")"
  # The shell makes the file: tar would change the folder that it packs, if that is the file's, and fail.
  tar -C "$out" --exclude=./cache --exclude=checkpoints --exclude='./map/*/*' --exclude='*.tar.gz' \
    -cz . >"$archive"
  echo "packed: $archive"
fi
exit "$failed"
