#!/usr/bin/env bash
# Everything that only a GPU can tell, in one command, on a machine with a GPU (compute capability 8.0 or newer), nvcc and
# CMake; Node.js is not needed. python3 with torch adds what PyTorch takes for the same operations in the same run, and with
# diffusers (installed, or as wheels in .whl/ or shared/wheels/) what it takes for whole pictures, and parity with it.
#
#   OUT=folder bash tools/gpu-check.sh [part…]
#     build     nd_test_cuda and nd_gpu_bench by nvcc
#     test      every wrapper of the simulator bit for bit, every kernel and the models against the reference
#     parity    UNets and operations of the real shapes against the CPU backend
#     bench     time of every operation at the real shapes beside PyTorch's, step loops and decoders, memory
#     diffusers whole pictures: parity, seconds, memory beside diffusers, eager and compiled
#     sanitize  compute-sanitizer's memcheck, racecheck and synccheck over the kernels
#
# All parts without any, in this order, in GPU_CHECK_SECONDS (570): a part gets what is left, at most its own limit; one that
# does not end in time or fails does not keep the others from running, and what did not run is named. The exit status is 0
# where everything ran and passed. Parts again, by name: what is built stays. Leaves at most five files in OUT (default
# build/gpu-check): table.md, results.json, end-to-end.json, summary.txt, logs.tar.gz.
#   GPU_CHECK_SIM=1   the same steps over the simulator and a tiny model: checks this script where there is no GPU
#   GPU_CHECK_COMMIT  the commit to note where this is no git checkout
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-build/gpu-check}
mkdir -p "$out"
out=$(cd "$out" && pwd)
sim=${GPU_CHECK_SIM:-}
end=$((SECONDS + ${GPU_CHECK_SECONDS:-570}))
all=(build test parity bench diffusers sanitize)
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=("${all[@]}")
jobs=$(nproc)
problems=()

if [ -n "$sim" ]; then
  build=build/gpu-check-sim models=(tiny) model_runs=("tiny 3")
  configure=(-DND_TESTS=ON -DND_CUDA=OFF)
  targets=(nd_test nd_gpu_bench_sim)
  test_binary=$build/nd_test bench_binary=$build/nd_gpu_bench_sim
else
  build=build/gpu models=(sd15 sd21 sdxl) model_runs=("sd15 50" "sd21 50" "sdxl 50")
  configure=(-DND_CUDA=ON -DND_CUDA_TESTS=ON -DND_TESTS=OFF)
  targets=(nd_test_cuda nd_gpu_bench)
  test_binary=$build/nd_test_cuda bench_binary=$build/nd_gpu_bench
fi
work=$build/gpu-check # logs and raw numbers, until they are collected
mkdir -p "$work"

left() { echo $((end - SECONDS)); }
collect() { # what there is so far: a run that is cut off leaves it, too
  tar -czf "$out/logs.tar.gz" -C "$work" .
  for file in table.md results.json end-to-end.json summary.txt; do
    [ ! -e "$work/$file" ] || cp "$work/$file" "$out/"
  done
}
step() { # NAME LIMIT FUNCTION: output to NAME.log and here
  local name=$1 limit=$2 start=$SECONDS status
  [ "$(left)" -ge "$limit" ] || limit=$(left)
  if [ "$limit" -lt 10 ]; then
    echo "== $name: NOT RUN, no time is left" | tee -a "$work/summary.txt"
    problems+=("$name (not run)")
    return
  fi
  echo "== $name (at most $limit s)"
  deadline=$((SECONDS + limit))
  "$3" 2>&1 | tee "$work/$name.log"
  status=${PIPESTATUS[0]}
  echo "== $name: status $status ($((SECONDS - start)) s)" | tee -a "$work/summary.txt"
  [ "$status" -eq 0 ] || problems+=("$name")
  collect
}
within() { # COMMAND…: ended where the part's time is over
  local seconds=$((deadline - SECONDS))
  [ "$seconds" -gt 0 ] || return 124
  timeout -k 5 "$seconds" "$@"
}

build_all() {
  local generator=()
  if command -v ninja >/dev/null && [ ! -e "$build/Makefile" ]; then generator=(-G Ninja); fi
  cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release "${configure[@]}" >"$work/cmake.log" 2>&1 ||
    { cat "$work/cmake.log"; return 1; }
  within cmake --build "$build" --target "${targets[@]}" -j "$jobs" | tail -n 30
}

# The simulator's own tests (mutations) take minutes.
test_all() {
  if [ -n "$sim" ]; then within "$test_binary" "cuda wrappers" "cuda enlarged" "cuda plan"; else within "$test_binary" cuda; fi
}

parity() {
  local status=0
  within "$bench_binary" parity tiny || status=1
  # A quarter of the picture: the CPU has to compute it, too.
  [ -n "$sim" ] || within "$bench_binary" parity sd15 32 || status=1
  return $status
}

bench() {
  local status=0 run
  : >"$work/models.jsonl"
  for run in "${model_runs[@]}"; do
    # shellcheck disable=SC2086  # model and steps are two words
    within "$bench_binary" model $run | tee -a "$work/models.jsonl" || status=1
  done
  within "$bench_binary" operations "${models[@]}" >"$work/operations.jsonl" || status=1
  within python3 bench/gpu/compare.py "$work" "$("$bench_binary" device)" || status=1
  return $status
}

with_diffusers() {
  local site=$PWD/$build/site wheels=()
  if ! python3 -c 'import torch' 2>/dev/null; then
    echo "no torch here"
    return 1
  fi
  if ! python3 -c 'import diffusers' 2>/dev/null; then
    mapfile -t wheels < <(ls .whl/*.whl shared/wheels/*.whl 2>/dev/null)
    if [ ${#wheels[@]} -eq 0 ]; then
      echo "no diffusers here, and no wheels of it in .whl/ or shared/wheels/"
      return 1
    fi
    python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$site" "${wheels[@]}" || return 1
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
  fi
  # Python ends in time by itself, with what it has.
  python3 bench/gpu/end_to_end.py "$work" "$bench_binary" $((deadline - SECONDS - 5)) "${models[@]}"
}

sanitize() {
  if ! command -v compute-sanitizer >/dev/null; then
    echo "no compute-sanitizer here"
    return 1
  fi
  local tool status=0 seconds
  for tool in memcheck racecheck synccheck; do
    echo "-- $tool"
    seconds=$(((deadline - SECONDS) / 2))
    [ "$tool" != synccheck ] || seconds=$((deadline - SECONDS))
    # Models repeat what the operations' tests cover, and take long here. Small tests first: what time cuts off is said.
    timeout -k 5 $((seconds > 1 ? seconds : 1)) compute-sanitizer --tool "$tool" --error-exitcode 9 "$test_binary" \
      "cuda wrappers" "cuda enlarged" "cuda attention" "cuda conv2d" "cuda backend" "cuda plan" "cuda matmul" 2>&1 | tail -n 25
    case ${PIPESTATUS[0]} in
      0) ;;
      124 | 137) echo "$tool: cut off after $seconds s without an error so far" && status=1 ;;
      *) status=1 ;;
    esac
  done
  return $status
}

: >"$work/summary.txt"
for part in "${parts[@]}"; do
  case $part in
    build) step build 240 build_all ;;
    test) step test 90 test_all ;;
    parity) step parity 60 parity ;;
    bench) step bench 150 bench ;;
    diffusers) step diffusers 300 with_diffusers ;;
    sanitize)
      if [ -n "$sim" ]; then echo "== sanitize: only on a GPU"; else step sanitize 240 sanitize; fi
      ;;
    *)
      echo "Expected parts out of ${all[*]} but received $part"
      exit 2
      ;;
  esac
done
if [ ${#problems[@]} -gt 0 ]; then
  echo "failed, or not complete: ${problems[*]}; parts can be run again by name" | tee -a "$work/summary.txt"
  collect
  exit 1
fi
echo "all parts passed: $out" | tee -a "$work/summary.txt"
collect
