#!/usr/bin/env bash
# Everything that only a GPU can tell, in one command, on a machine with a GPU (compute capability 8.0 or newer), nvcc and
# CMake; Node.js is not needed. python3 with torch adds what PyTorch takes for the same operations in the same run.
#
#   OUT=folder bash tools/gpu-check.sh [part…]      parts: build test parity bench sanitize; all of them without any
#
# Writes logs, raw JSON and table.md to OUT (default build/gpu-check). One part fails: the others still run, and the exit
# status says so. On 16 cores everything is meant to take less than ten minutes; `build` alone first where time is short.
#   GPU_CHECK_SIM=1   the same steps over the simulator and a tiny model: checks this script where there is no GPU
#   GPU_CHECK_COMMIT  the commit to note where this is no git checkout
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-build/gpu-check}
mkdir -p "$out"
out=$(cd "$out" && pwd)
sim=${GPU_CHECK_SIM:-}
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(build test parity bench sanitize)
jobs=$(nproc)
failed=()

if [ -n "$sim" ]; then
  build=build/gpu-check-sim models=(tiny) model_runs=("tiny 3")
  configure=(-DND_TESTS=ON -DND_CUDA=OFF)
  targets=(nd_test nd_gpu_bench_sim)
  test_binary=$build/nd_test bench_binary=$build/nd_gpu_bench_sim
else
  build=build/gpu models=(sd15 sd21 sdxl) model_runs=("sd15 50" "sd21 50" "sdxl 50")
  configure=(-DND_CUDA=ON -DND_CUDA_TESTS=ON)
  targets=(nd_test_cuda nd_gpu_bench)
  test_binary=$build/nd_test_cuda bench_binary=$build/nd_gpu_bench
fi

step() { # NAME COMMAND…: output to OUT/NAME.log and here; a failure is remembered
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  "$@" 2>&1 | tee "$out/$name.log"
  local status=${PIPESTATUS[0]}
  echo "== $name: status $status ($((SECONDS - start)) s)"
  [ "$status" -eq 0 ] || failed+=("$name")
}

build_all() {
  local generator=()
  command -v ninja >/dev/null && generator=(-G Ninja)
  cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release "${configure[@]}" >"$out/cmake.log" 2>&1 ||
    { cat "$out/cmake.log"; return 1; }
  cmake --build "$build" --target "${targets[@]}" -j "$jobs" | tail -n 30
}

parity() {
  local model status=0
  "$bench_binary" parity tiny || status=1
  # A quarter of the picture: the CPU has to compute it, too.
  [ -n "$sim" ] || "$bench_binary" parity sd15 32 || status=1
  return $status
}

bench() {
  local status=0 run
  "$bench_binary" operations "${models[@]}" >"$out/operations.jsonl" || status=1
  : >"$out/models.jsonl"
  for run in "${model_runs[@]}"; do
    # shellcheck disable=SC2086  # model and steps are two words
    "$bench_binary" model $run | tee -a "$out/models.jsonl" || status=1
  done
  python3 bench/gpu/compare.py "$out" "$("$bench_binary" device)" || status=1
  return $status
}

sanitize() {
  if ! command -v compute-sanitizer >/dev/null; then
    echo "no compute-sanitizer here: skipped"
    return 0
  fi
  local tool status=0
  for tool in memcheck racecheck synccheck; do
    echo "-- $tool"
    # Models repeat what the operations' tests cover, and take long here.
    timeout 240 compute-sanitizer --tool "$tool" --error-exitcode 9 "$test_binary" \
      "cuda backend" "cuda plan" "cuda attention" "cuda matmul" 2>&1 | tail -n 25
    [ "${PIPESTATUS[0]}" -eq 0 ] || status=1
  done
  return $status
}

for part in "${parts[@]}"; do
  case $part in
    build) step build build_all ;;
    test) step test "$test_binary" cuda ;;
    parity) step parity parity ;;
    bench) step bench bench ;;
    sanitize)
      if [ -n "$sim" ]; then echo "== sanitize: only on a GPU"; else step sanitize sanitize; fi
      ;;
    *)
      echo "Expected parts out of build, test, parity, bench, sanitize but received $part"
      exit 2
      ;;
  esac
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}"
  exit 1
fi
echo "all parts passed: $out"
