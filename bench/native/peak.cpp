#include "bench/native/peak.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace nd::bench {

static bool processorTime = false;
void useProcessorTime() { processorTime = true; }

double seconds() {
  if (processorTime) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

namespace {

// `kChains` independent accumulators hide the latency of the FMA units. Each function returns the flops that
// it did.
#define ND_PEAK_LOOP(LOAD, STEP)                                     \
  for (int c = 0; c < kChains; c++) acc[c] = LOAD;                   \
  for (int64_t i = 0; i < rounds; i++) {                             \
    _Pragma("GCC unroll 20") for (int c = 0; c < kChains; c++) STEP; \
  }                                                                  \
  for (int c = 0; c < kChains; c++) asm volatile("" ::"m"(acc[c]));  \
  return 2.0 * kChains * static_cast<double>(rounds) * (sizeof(acc[0]) / 4);

#if defined(__x86_64__)
__attribute__((target("avx512f"))) double chainAvx512(int64_t rounds) {
  constexpr int kChains = 20;
  __m512 acc[kChains], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
  ND_PEAK_LOOP(x, acc[c] = _mm512_fmadd_ps(acc[c], x, y))
}
__attribute__((target("avx2,fma"))) double chainAvx2(int64_t rounds) {
  constexpr int kChains = 12;
  __m256 acc[kChains], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
  ND_PEAK_LOOP(x, acc[c] = _mm256_fmadd_ps(acc[c], x, y))
}
double chainScalar(int64_t rounds) {
  constexpr int kChains = 12;
  __m128 acc[kChains], x = _mm_set1_ps(0.999f), y = _mm_set1_ps(0.001f);
  ND_PEAK_LOOP(x, acc[c] = _mm_add_ps(_mm_mul_ps(acc[c], x), y))
}
#elif defined(__aarch64__)
double chainNeon(int64_t rounds) {
  constexpr int kChains = 20;
  float32x4_t acc[kChains], x = vdupq_n_f32(0.999f), y = vdupq_n_f32(0.001f);
  ND_PEAK_LOOP(x, acc[c] = vfmaq_f32(y, acc[c], x))
}
#endif

}  // namespace

double fmaPeak([[maybe_unused]] const char* isa, ThreadPool& pool, double duration) {
#if defined(__x86_64__)
  double (*chain)(int64_t) = chainScalar;
  if (!std::strcmp(isa, "avx512")) chain = chainAvx512;
  if (!std::strcmp(isa, "avx2")) chain = chainAvx2;
#elif defined(__aarch64__)
  double (*chain)(int64_t) = chainNeon;
#else
#error "the peak of this architecture is not measured yet: add its chain"
#endif
  constexpr int64_t kRounds = 100000;
  double best = 0;
  for (const double end = seconds() + duration; seconds() < end;) {
    std::vector<double> flops(pool.threads());
    const double start = seconds();
    pool.parallelFor(pool.threads(), [&](int64_t task, int) { flops[task] = chain(kRounds); });
    const double time = seconds() - start;
    double sum = 0;
    for (double f : flops) sum += f;
    best = std::max(best, sum / time * 1e-9);
  }
  return best;
}

double readBandwidth(ThreadPool& pool, double duration) {
  constexpr int64_t kFloats = 32 << 20, kChunk = 1 << 18;  // 128 MiB
  const std::vector<float> data(kFloats, 1.0f);
  double best = 0;
  for (const double end = seconds() + duration; seconds() < end;) {
    const double start = seconds();
    pool.parallelFor(kFloats / kChunk, [&](int64_t task, int) {
      const float* p = data.data() + task * kChunk;
      float lanes[32] = {};
      for (int64_t i = 0; i < kChunk; i += 32)
        for (int l = 0; l < 32; l++) lanes[l] += p[i + l];
      for (int l = 0; l < 32; l++) asm volatile("" ::"m"(lanes[l]));
    });
    best = std::max(best, kFloats * 4 / (seconds() - start) * 1e-9);
  }
  return best;
}

}  // namespace nd::bench
