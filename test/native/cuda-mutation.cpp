// What the simulator is worth: every kind of error that it claims to find, made on purpose, and every
// synchronising call of the matrix and attention kernels left out once.
#include "test/native/cuda-mutation.h"

#include <cmath>

#include "cuda/kernels/attention.h"
#include "cuda/kernels/gemm.h"
#include "cuda/kernels/matmul.h"
#include "cuda/tile/async-copy.h"
#include "cuda/tile/mma.h"
#include "test/native/cuda-support.h"

namespace nd::test {
namespace {

using namespace nd::cuda;

struct Broken {
  Global<float> data;
  int fault = 0;
};
/// Reverses the numbers of a block of 64 through shared memory, wrongly.
__global__ void brokenKernel(const Broken p) {
  const auto memory = shared<float>(0, 64);
  const int i = static_cast<int>(threadIdx.x);
  if (p.fault == 1 && i == 63) memory[i + 1] = 0;  // one beyond the end
  if (p.fault == 2) (void)toFloat(p.data[i + 1]);  // one beyond the end
  memory[i] = p.data[i];
  if (p.fault != 3) syncThreads();
  const float value = memory[63 - i];
  if (p.fault == 4 && i < 32) syncThreads();  // the second warp never comes
  if (p.fault == 5) memory[i] = 0;            // others may still read it
  if (p.fault == 6 && i % 2) (void)shuffle(value, 0);
  if (p.fault == 7) (void)load16(memory + 1);  // not a multiple of 16 bytes
  if (p.fault == 8) {
    asyncCopy16<float>(memory, p.data, true);
    asyncCommit();
    (void)static_cast<float>(memory[i]);
  }
  if (p.fault == 9 && i == 0) {
    atomicAdd(memory + 5, 1.0f);  // others read it before, unordered
  }
  p.data[i] = value;
}

void runBroken(int fault) {
  const DeviceFloats data(randomFloats(64, 1));
  launch("broken", brokenKernel, {1, 64, 256, nullptr},
         Broken{Global<float>(const_cast<float*>(data.data())), fault});
}

}  // namespace

ND_TEST("cuda simulator: names the kernel, the thread and the fault") {
  runBroken(0);
  const char* messages[] = {"",
                            "shared access of 4 bytes at offset 256 of an array of 256",
                            "global access of 4 bytes at offset 256 of an allocation of 256",
                            "without a barrier in between",
                            "deadlock",
                            "without a barrier in between",
                            "deadlock",
                            "not aligned",
                            "nobody has waited for it",
                            "without a barrier in between"};
  for (int fault = 1; fault < 10; fault++) {
    CHECK_ERROR(runBroken(fault), ErrorCode::Internal, messages[fault]);
    CHECK_ERROR(runBroken(fault), ErrorCode::Internal, "kernel broken, block (0, 0, 0)");
  }
  runBroken(0);
}

ND_TEST("cuda mutation: matmul") {
  for (auto [tileM, tileN, splits] : {std::tuple{128, 160, 1}, {64, 64, 2}}) {
    expectDeletionsNoticed(
        format("matmul %dx%d", tileM, tileN), [&, tileM = tileM, tileN = tileN, splits = splits] {
          const int64_t m = 100, n = 72, k = 264;  // the last tile lies where results are staged
          const DeviceTensor x(DType::F16, {m, k}, randomOf(DType::F16, m * k, 1)),
              w(DType::F16, {n, k}, randomOf(DType::F16, n * k, 2)), y(DType::F16, {m, n});
          GemmArgs g;
          g.m = m, g.n = n, g.k = k, g.x = x.data(), g.xStride = k, g.w = w.data(), g.wPitch = k,
          g.y = y.data(), g.yStride = n;
          forcedMatmulTile() = {tileM, tileN, splits};
          struct Restore {
            ~Restore() { forcedMatmulTile() = {}; }
          } restore;
          gemm(testLaunch(4), g);
          return y.download();
        });
  }
}

ND_TEST("cuda mutation: Hopper's matmul") {
  for (int tile : {160, 256})
    expectDeletionsNoticed(format("matmul Hopper 128x%d", tile), [&] {
      const int64_t m = 140, n = 24, k = 440;  // two tiles by one block, more steps than buffers
      const DeviceTensor x(DType::F16, {m, k}, randomOf(DType::F16, m * k, 1)),
          w(DType::F16, {n, k}, randomOf(DType::F16, n * k, 2)), y(DType::F16, {m, n});
      GemmArgs g;
      g.m = m, g.n = n, g.k = k, g.x = x.data(), g.xStride = k, g.w = w.data(), g.wPitch = k, g.y = y.data(),
      g.yStride = n;
      forcedMatmulTile() = {128, tile, 1, 0, true};
      struct Restore {
        ~Restore() { forcedMatmulTile() = {}; }
      } restore;
      gemm(testLaunch(1), g);
      return y.download();
    });
}

ND_TEST("cuda mutation: attention") {
  for (int64_t d : {40, 80})
    expectDeletionsNoticed(format("attention d%d", int(d)), [&] {
      const Shape qs{1, 70, d}, ks{1, 150, d};
      const DeviceTensor q(DType::F16, qs, randomOf(DType::F16, qs.count(), 1)),
          k(DType::F16, ks, randomOf(DType::F16, ks.count(), 2)),
          v(DType::F16, ks, randomOf(DType::F16, ks.count(), 3)), y(DType::F16, qs);
      cuda::attention(testLaunch(4), DType::F16,
                      {q.tensor(), k.tensor(), v.tensor(), y.tensor(), 1, 0.2f, false});
      return y.download();
    });
}

ND_TEST("cuda mutation: Hopper's attention") {
  for (int64_t d : {40, 80})
    expectDeletionsNoticed(format("attention Hopper d%d", int(d)), [&] {
      const Shape qs{1, 70, d}, ks{1, 500, d};  // more tiles of keys than buffers
      const DeviceTensor q(DType::F16, qs, randomOf(DType::F16, qs.count(), 1)),
          k(DType::F16, ks, randomOf(DType::F16, ks.count(), 2)),
          v(DType::F16, ks, randomOf(DType::F16, ks.count(), 3)), y(DType::F16, qs);
      Launch launch = testLaunch(4);
      launch.capability = 90;
      cuda::attention(launch, DType::F16, {q.tensor(), k.tensor(), v.tensor(), y.tensor(), 1, 0.2f, false});
      return y.download();
    });
}

}  // namespace nd::test
