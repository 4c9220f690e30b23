// Noise as PyTorch makes it, so that a seed means the same picture: torch.randn with a CPU generator
// (Mersenne Twister) and with a CUDA generator (Philox).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

namespace nd {

/// One generator. Successive draws continue it; a draw of n = 0 changes nothing. Not thread-safe.
class NoiseSource {
 public:
  virtual ~NoiseSource() = default;
  /// Standard normal numbers, as torch.randn of n contiguous float32 elements.
  virtual void randn(float* out, int64_t n) = 0;
};

/// The Mersenne Twister MT19937 (Matsumoto and Nishimura 1998): uniform 32-bit integers.
class Mt19937 {
 public:
  explicit Mt19937(uint32_t seed);
  uint32_t next();

 private:
  void refill();
  static constexpr int kSize = 624;
  std::array<uint32_t, kSize> state_;
  int at_ = kSize;
};

/// torch.Generator('cpu').manual_seed(seed). torch uses the low 32 bits of the seed.
/// The integer stream and rand() are torch's to the bit; randn() is to the bit what torch gives on x86 with
/// AVX2 and FMA, where it evaluates logarithm, sine and cosine as the Cephes library does; torch on other
/// machines differs in the last place or two.
class TorchGenerator : public NoiseSource {
 public:
  explicit TorchGenerator(uint64_t seed) : engine_(static_cast<uint32_t>(seed)) {}

  /// ATen's normal_: from 16 elements on, uniforms for all of them, then Box-Muller in groups of 16 (element
  /// j with j + 8), and where n is not a multiple of 16 the last 16 are drawn again. Below 16, Box-Muller in
  /// double one by one; the second number of a pair is kept for the next draw of that kind.
  void randn(float* out, int64_t n) override;
  /// torch.randn with dtype float16, as F16 bits: the float32 numbers, rounded.
  void randnHalf(uint16_t* out, int64_t n);
  /// torch.rand, float32 in [0, 1): 24 random bits each.
  void rand(float* out, int64_t n);

 private:
  float uniform() { return static_cast<float>(engine_.next() & 0xffffff) * 0x1p-24f; }
  double uniformDouble();
  double normalDouble();

  Mt19937 engine_;
  std::optional<double> spare_;  // the second normal of the last pair drawn by normalDouble()
};

/// torch.Generator('cuda').manual_seed(seed): Philox 4x32-10 (Salmon et al. 2011). Element i of call c is
/// made from counter (c, 0, i, 0), as on any GPU that has a thread for every element (n ≤ multiprocessors ×
/// threads per multiprocessor, 82 × 1536 on a small one), and as AUTOMATIC1111 emulates it for every size.
class PhiloxGenerator : public NoiseSource {
 public:
  explicit PhiloxGenerator(uint64_t seed) : seed_(seed) {}
  void randn(float* out, int64_t n) override;

 private:
  uint64_t seed_;
  uint32_t call_ = 0;
};

enum class NoiseKind : uint8_t { Cpu, Cuda };
std::unique_ptr<NoiseSource> makeNoiseSource(uint64_t seed, NoiseKind kind);

}  // namespace nd
