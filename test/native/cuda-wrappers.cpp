// Every wrapper of cuda/tile against plain arithmetic on small whole numbers, bit for bit: in the simulator
// here, and on a GPU where these tests are built for one.
#include <cmath>

#include "cuda/kernels/probe.h"
#include "test/native/cuda-support.h"
#ifdef ND_CUDA_SIM
#include "cuda/sim/hopper.h"
#endif

namespace nd::test {
namespace {

/// −2 … 2.
std::vector<float> wholeNumbers(int64_t count, uint32_t seed) {
  std::vector<float> values = randomFloats(count, seed);
  for (float& v : values) v = std::nearbyint(2 * v);
  return values;
}
struct Results {
  explicit Results(int64_t count) : count(count), device(std::vector<float>(count, NAN)) {}
  std::vector<float> download() const {
    std::vector<float> host(count);
    cuda::check(cudaDeviceSynchronize(), "test");
    cuda::check(cudaMemcpy(host.data(), device.data(), count * 4, cudaMemcpyDeviceToHost), "test");
    return host;
  }
  float* data() const { return const_cast<float*>(device.data()); }
  int64_t count;
  DeviceFloats device;
};

}  // namespace

ND_TEST("cuda wrappers: copies, ldmatrix, mma, shuffles") {
  const auto a = wholeNumbers(256, 1), b = wholeNumbers(128, 2), bt = wholeNumbers(128, 3);
  const DeviceTensor da(DType::F16, {16, 16}, a), db(DType::F16, {8, 16}, b), dt(DType::F16, {16, 8}, bt);
  const Results product(128), transposed(128), exchanged(96), votes(1);
  cuda::probePortable(testLaunch(1), {da.data(), db.data(), dt.data(), product.data(), transposed.data(),
                                      exchanged.data(), votes.data()});
  std::vector<float> expected(128), expectedTransposed(128), lanes(96);
  for (int m = 0; m < 15; m++)
    for (int n = 0; n < 8; n++)
      for (int k = 0; k < 16; k++) {
        expected[m * 8 + n] += a[m * 16 + k] * b[n * 16 + k];
        expectedTransposed[m * 8 + n] += a[m * 16 + k] * bt[k * 8 + n];
      }
  uint32_t bits = 0;
  for (int i = 0; i < 32; i++) {
    lanes[i] = static_cast<float>(i ^ 5), lanes[32 + i] = static_cast<float>(i + 3 < 32 ? i + 3 : i),
    lanes[64 + i] = 7;
    if (i % 3 == 0) bits |= 1u << i;
  }
  checkClose(product.download(), expected, 0, "ldmatrix and mma");
  checkClose(transposed.download(), expectedTransposed, 0, "ldmatrix.trans and mma");
  checkClose(exchanged.download(), lanes, 0, "shuffles");
  checkClose(votes.download(), {static_cast<float>(bits % 65536)}, 0, "ballot");
}

ND_TEST("cuda wrappers: tensor copies, mbarriers, wgmma") {
  if (!haveHopper()) throw ndtest::Skip("needs a GPU of capability 9.0");
  const auto image = wholeNumbers(8 * 9 * 64, 1), b = wholeNumbers(64 * 64, 2), v = wholeNumbers(64 * 64, 3);
  const DeviceTensor di(DType::F16, {8, 9, 64}, image), db(DType::F16, {64, 64}, b),
      dv(DType::F16, {64, 64}, v);
  const Results first(64 * 64), second(64 * 64);
  cuda::probeHopper(testLaunch(1), {di.data(), db.data(), dv.data(), first.data(), second.data()});
  std::vector<float> expected(64 * 64), expectedSecond(64 * 64);
  for (int r = 0; r < 64; r++) {
    const int h = r / 8 + 1, w = r % 8 - 1;
    for (int n = 0; n < 64; n++)
      for (int k = 0; k < 60; k++)
        if (h < 8 && w >= 0) expected[r * 64 + n] += image[(h * 9 + w) * 64 + k] * b[n * 64 + k];
  }
  for (int r = 0; r < 64; r++)
    for (int n = 0; n < 64; n++)
      for (int k = 0; k < 64; k++) expectedSecond[r * 64 + n] += expected[r * 64 + k] * v[k * 64 + n];
  checkClose(first.download(), expected, 0, "wgmma of two operands in shared memory");
  checkClose(second.download(), expectedSecond, 0, "wgmma of registers and a transposed operand");
}

#ifdef ND_CUDA_SIM
ND_TEST("cuda simulator: decodes descriptors of every swizzle") {
  const auto descriptor = [](uint64_t mode, uint64_t start, uint64_t leading, uint64_t stride) {
    return start / 16 | leading / 16 << 16 | stride / 16 << 32 | mode << 62;
  };
  using cuda::sim::operandOffset;
  using cuda::sim::transposedOffset;
  // Core matrices of 8 rows × 16 bytes: 256 apart along K, 512 from 8 rows to the next.
  CHECK(operandOffset(descriptor(0, 4096, 256, 512), 11, 8) == 4096 + 512 + 3 * 16 + 256);
  // Rows of 128, 64 and 32 bytes; chunk j of row r lies at j ^ (r mod 8), j ^ (r / 2 mod 4), j ^ (r / 4 mod
  // 2).
  CHECK(operandOffset(descriptor(1, 2048, 0, 1024), 13, 24) == 2048 + 1024 + 5 * 128 + (3 ^ 5) * 16);
  CHECK(operandOffset(descriptor(2, 2048, 0, 512), 13, 24) == 2048 + 512 + 5 * 64 + (3 ^ 2) * 16);
  CHECK(operandOffset(descriptor(3, 2048, 0, 256), 13, 8) == 2048 + 256 + 5 * 32 + (1 ^ 1) * 16);
  // Starting 32 bytes into the row is K = 16 on.
  CHECK(operandOffset(descriptor(1, 2048 + 32, 0, 1024), 13, 8) ==
        operandOffset(descriptor(1, 2048, 0, 1024), 13, 24));
  // N-contiguous: columns 64 on in the next box, k / 8 rows of 1024 bytes.
  CHECK(transposedOffset(descriptor(1, 0, 8192, 1024), 72, 11) == 8192 + 1024 + 3 * 128 + (1 ^ 3) * 16);
}
#endif

}  // namespace nd::test
