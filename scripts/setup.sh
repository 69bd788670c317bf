#!/usr/bin/env bash
# Installs the Debian packages that preheat needs and this machine lacks.
#   --with-lint      also clang-format and clang-tidy
#   --with-browser   also Chromium, for the tests that open pages
#   --with-peers     also PyTorch, for comparison
# The build uses CUDA if it finds nvcc; this script does not install CUDA.
set -euo pipefail

packages=(
  g++ cmake ninja-build
  libcli11-dev libfmt-dev libyaml-cpp-dev nlohmann-json3-dev zlib1g-dev
  libdnnl-dev ocl-icd-opencl-dev opencl-c-headers # dnnl's CMake package asks for OpenCL
  libjs-chart.js # for the HTML pages
  libgtest-dev libgmock-dev
  dataset-fashion-mnist
)
for argument in "$@"; do
  case $argument in
    --with-lint) packages+=(clang-format clang-tidy) ;;
    --with-browser) packages+=(chromium) ;;
    --with-peers) packages+=(python3-torch) ;;
    *)
      echo "setup.sh: unknown argument '$argument'; there are --with-lint, --with-browser and --with-peers" >&2
      exit 2
      ;;
  esac
done

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  {
    echo "setup.sh: this system has no apt-get; install by its own means what Debian calls"
    printf '  %s\n' "${packages[@]}"
  } >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  # One line for each architecture that it is known for.
  dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -x installed >/dev/null ||
    missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "setup: nothing is missing"
  exit 0
fi

as_root=(env DEBIAN_FRONTEND=noninteractive)
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    {
      echo "setup.sh: installing needs root, and there is no sudo; as root, run"
      echo "  apt-get update && apt-get install --no-install-recommends ${missing[*]}"
    } >&2
    exit 1
  fi
  as_root=(sudo "${as_root[@]}")
fi
echo "setup: installing ${missing[*]}"
"${as_root[@]}" apt-get update -q
"${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}"
