#!/usr/bin/env bash
# Everything that needs a GPU, in one call of at most nine minutes. Results are JSON lines.
#
#   benchmarks/gpu.sh prepare FSDD [DRUMS]                   # with a network: wheels and sounds → .gpu, at most 64 MiB
#   benchmarks/gpu.sh run OUT [STEP...] [--device cpu]       # with the GPU, without a network
#
# Steps: tests speed fsdd drums (default: all, in this order). Each has a time limit, so that one that fails or
# hangs does not lose the rest. With --device cpu everything is tiny, to see that the script works.
set -uo pipefail
cd "$(dirname "$0")/.."
carried=$PWD/.gpu
python=${PYTHON:-python3}
# What Python 3.12 with torch, torchaudio, numba, scipy, scikit-learn, matplotlib, transformers and pytest lacks.
# WHEELS adds more names.
wheels=('librosa<1' audioread pooch platformdirs decorator lazy_loader msgpack soundfile cffi pycparser soxr constriction
  tyro docstring_parser typeguard vector-quantize-pytorch einops einx frozendict loguru torch-einops-utils pystoi)
most_mib=64
total=540 # seconds of all steps

prepare() {
  local fsdd=$1 drums=${2:-} platforms=() version wheel size
  rm -rf "$carried" && mkdir -p "$carried/wheels"
  for version in 39 35 34 31 28 27 26 24 17 5; do platforms+=(--platform "manylinux_2_${version}_x86_64"); done
  platforms+=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64)
  for wheel in "${wheels[@]}" ${WHEELS:-}; do
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
      "${platforms[@]}" --dest "$carried/wheels" "$wheel" || echo "gpu: $wheel has no wheel" >&2
  done
  tar -C "$fsdd" -chJf "$carried/fsdd.tar.xz" .
  if [ -n "$drums" ]; then # the short hits, so that all fits
    (cd "$drums" && find -L . -type f -size -150k -print0) |
      tar -C "$drums" --null -T - -chJf "$carried/drums.tar.xz"
  fi
  size=$(du -sm "$carried" | cut -f1)
  echo "$carried holds $size MiB; at most $most_mib can be carried"
  [ "$size" -le $most_mib ]
}

# step NAME LIMIT COMMAND...: run it with a time limit; add its exit code (124: too slow) and seconds to steps.jsonl.
step() {
  local name=$1 limit=$2 begin=$SECONDS code
  shift 2
  local left=$((total - SECONDS))
  [ "$limit" -lt "$left" ] || limit=$left
  if [ "$limit" -le 0 ]; then code=124; else
    timeout --kill-after 5 "$limit" "$@" > "$out/$name.log" 2>&1
    code=$?
  fi
  printf '{"step": "%s", "exit_code": %d, "seconds": %d, "limit": %d}\n' \
    "$name" $code $((SECONDS - begin)) "$limit" | tee -a "$out/steps.jsonl"
  [ $code = 0 ] || tail -n 5 "$out/$name.log"
  return $code
}

unpack() { # a folder of recordings; on a CPU each twentieth
  if ! { mkdir -p "$work/$1" && tar -C "$work/$1" -xJf "$carried/$1.tar.xz"; }; then
    printf '{"step": "%s", "exit_code": 1, "seconds": 0, "limit": 0}\n' "$1" | tee -a "$out/steps.jsonl"
    return 1
  fi
  [ "$device" = cuda ] || find "$work/$1" -type f | sort | awk 'NR % 20' | xargs -d '\n' rm
}

run() {
  out=$(realpath -m "$1") device=cuda work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  shift
  local steps=() quick=() tiny=() collect=()
  while [ $# -gt 0 ]; do
    case $1 in
      --device) device=$2 && shift ;;
      *) steps+=("$1") ;;
    esac
    shift
  done
  [ "$device" = cuda ] || { quick=(--quick) && tiny=(--tiny) && collect=(--collect-only); }
  [ ${#steps[@]} -gt 0 ] || steps=(tests speed fsdd drums)
  # The steps of an earlier run into the same folder do not count.
  mkdir -p "$out" && : > "$out/steps.jsonl"
  export PYTHONPATH=$work/site:$PWD PYTHONUNBUFFERED=1
  if ! "$python" -c 'import constriction, librosa, soundfile, soxr, tyro' 2> /dev/null; then
    step install 60 "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir \
      --target "$work/site" "$carried"/wheels/*.whl
  fi
  local name
  for name in "${steps[@]}"; do
    case $name in
      tests) step tests 120 "$python" -m pytest -q -m gpu -n 0 -p no:cacheprovider "${collect[@]}" ;;
      speed)
        step training_step 70 "$python" benchmarks/speed/run.py training_step --out "$out/speed.jsonl" "${quick[@]}"
        step sampling 70 "$python" benchmarks/speed/run.py sampling --out "$out/speed.jsonl" "${quick[@]}"
        ;;
      fsdd) unpack fsdd && step fsdd 200 "$python" benchmarks/speed/pipeline.py "$work/fsdd" \
        --preset small --limit 120 --device "$device" --out "$out/speed.jsonl" "${tiny[@]}" ;;
      drums) unpack drums && step drums $total "$python" benchmarks/speed/pipeline.py "$work/drums" \
        --preset base --limit 480 --device "$device" --out "$out/speed.jsonl" "${tiny[@]}" ;;
      *) echo "gpu: no step $name; choose from tests speed fsdd drums" >&2 && exit 2 ;;
    esac
  done
  ! grep -qv '"exit_code": 0' "$out/steps.jsonl"
}

case ${1:-}:$# in
  prepare:[23] | run:[2-9]) "$@" && exit; exit 1 ;;
  *) sed -n '4,5p' "$0" >&2 && exit 2 ;;
esac
