#!/usr/bin/env bash
# Packs what a GPU machine needs for scripts/gpu_check.sh into one preheat-bundle.tar.xz: the
# programs of build/release, the shared libraries that such a machine lacks, the configurations, and
# Fashion-MNIST if it is installed here. The machine is expected to have the C and C++ libraries,
# CUDA, cuDNN and cuBLAS.
#
#   scripts/bundle.sh [OUT_DIR]     (default: build/bundle)
set -euo pipefail

most_bytes=60000000
build=build/release
images=/usr/share/datasets/fashion-mnist
image_files=(
  train-images-idx3-ubyte.gz train-labels-idx1-ubyte.gz
  t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz
)

fail() {
  echo "bundle.sh: $1" >&2
  exit "${2:-1}"
}

if (($# > 1)) || [[ ${1:-} == -* ]]; then
  fail "usage: bundle.sh [OUT_DIR]" 2
fi
out=build/bundle
[[ -z ${1:-} ]] || out=$(realpath -m -- "$1")  # the caller's folder, not ours
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Not packed: the C and C++ libraries, because a newer system's run what was linked with older ones,
# and CUDA's, which are hundreds of megabytes. Everything else is packed.
is_there_already() {
  case $1 in
    linux-vdso.so.* | ld-linux*) ;;
    libc.so.* | libm.so.* | libdl.so.* | librt.so.* | libpthread.so.* | libresolv.so.*) ;;
    libstdc++.so.* | libgcc_s.so.* | libz.so.*) ;;
    libcuda.so.* | libcudart.so.* | libcudnn*.so.* | libcublas*.so.* | libnvrtc*.so.* | libnvJitLink.so.*) ;;
    *) return 1 ;;
  esac
}

copy_libraries_of() {
  local name arrow path rest
  while read -r name arrow path rest; do
    name=${name##*/}
    is_there_already "$name" && continue
    [[ $arrow == "=>" && -f $path ]] || fail "$1 needs $name, which is not found"
    [[ -e $root/lib/$name ]] || cp -L "$path" "$root/lib/$name"
  done < <(ldd "$1")
}

mkdir -p "$out"
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/preheat-bundle
mkdir -p "$root/bin" "$root/lib" "$root/scripts"

for program in preheat tests/preheat_gpu_tests; do
  [[ -x $build/$program ]] ||
    fail "$build/$program is missing; scripts/build.sh all builds it where nvcc is found"
  copy_libraries_of "$build/$program"
  strip -o "$root/bin/${program##*/}" "$build/$program"
done
strip --strip-unneeded "$root"/lib/*

cp -R configs "$root/"
cp scripts/gpu_check.sh "$root/scripts/"
mkdir "$root/scripts/peers"
cp scripts/peers/*.py "$root/scripts/peers/"

if [[ -f $images/${image_files[0]} ]]; then
  mkdir -p "$root/data/fashion-mnist"
  cp "${image_files[@]/#/$images/}" "$root/data/fashion-mnist/"
else
  echo "bundle.sh: without images: no $images; scripts/setup.sh installs it" >&2
fi

bundle=$out/preheat-bundle.tar.xz
tar -C "$work" --owner=0 --group=0 --numeric-owner -cf - preheat-bundle | xz -T0 -6 >"$work/bundle"
mv "$work/bundle" "$bundle"

du -k -d 1 --apparent-size "$root" | awk -F'[\t/]' '{ printf "%8.1f MB  %s\n", $1 * 1024 / 1e6, $NF }'
bytes=$(stat -c %s "$bundle")
awk -v bytes="$bytes" -v path="$bundle" 'BEGIN { printf "%s: %.1f MB\n", path, bytes / 1e6 }'
((bytes <= most_bytes)) || fail "$bundle is larger than $((most_bytes / 1000000)) MB"
