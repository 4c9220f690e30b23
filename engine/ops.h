// The operations that models call: they check shapes, allocate the result in the arena, look for an abort and
// time themselves where a profile is kept. One call is one backend kernel.
#pragma once

#include <atomic>
#include <map>
#include <span>
#include <string>

#include "engine/arena.h"
#include "engine/backend.h"

namespace nd {

/// Seconds, calls and floating-point operations (2 per multiply-add) per operation and shape.
struct Profile {
  struct Entry {
    double seconds = 0, flops = 0;
    int64_t calls = 0;
  };
  std::map<std::string, Entry> entries;  // "conv2d 3x3 s1 320->320 @ 2x64x64"
};

class AttentionRecorder;

/// What a forward pass runs on. Passed down by reference; nothing global.
struct Context {
  Backend& backend;
  Arena& arena;
  const std::atomic<bool>* abort = nullptr;
  Profile* profile = nullptr;
  AttentionRecorder* attentionMaps = nullptr;  // sees every cross-attention, where somebody asks
  /// Convolutions see pictures that repeat to the left and right, above and below: for seamless tiles.
  bool tileX = false, tileY = false;

  /// Throws Error(Aborted) when the caller has asked for an end.
  void checkAbort() const {
    if (abort && abort->load(std::memory_order_relaxed)) throw Error(ErrorCode::Aborted, "aborted");
  }
};

/// y = x Wᵀ + b.
struct Linear {
  WeightPtr weight, bias;  // bias may be empty
};
/// kernel × kernel, or 1 × 1.
struct Conv2d {
  WeightPtr weight, bias;
  int kernel = 3, stride = 1, padding = 1;
};
/// Group or layer normalisation.
struct Norm {
  WeightPtr gamma, beta;
  float epsilon = 1e-5f;
  int groups = 1;  // groups of a GroupNorm
};

struct LinearOptions {
  Activation activation = Activation::None;
  const Tensor* residual = nullptr;
  const Tensor* into = nullptr;  // where the result goes; else allocated
};
/// x[..., K] → [..., N].
Tensor linear(Context&, const Tensor& x, const Linear&, const LinearOptions& = {});

struct ConvOptions {
  const Tensor* skip = nullptr;  // concatenated to x along channels
  int64_t resizeH = 0,
          resizeW = 0;  // nearest-neighbour size of the input before the convolution; 0: as it is
  const Tensor* channelAdd = nullptr;  // [B, N] or [1, N]
  Activation activation = Activation::None;
  const Tensor* residual = nullptr;
  const Tensor* into = nullptr;
  bool padBottomRightOnly = false;  // the VAE encoder's downsampler: (0, 1, 0, 1)
};
/// [B, H, W, C] → [B, Ho, Wo, N].
Tensor conv2d(Context&, const Tensor& x, const Conv2d&, const ConvOptions& = {});

struct NormOptions {
  Activation activation = Activation::None;  // None, Silu or Gelu
  const Tensor* skip = nullptr;              // concatenated to x along channels
  const Tensor* into = nullptr;              // may be x itself where there is no skip
  const Tensor* modulation = nullptr;        // [B or 1, 2C]: scales and shifts before the activation
};
/// [B, ..., C1] (+ skip [B, ..., C2]) → [B, ..., C1 + C2].
Tensor groupNorm(Context&, const Tensor& x, const Norm&, const NormOptions& = {});
/// Same shape. A norm without beta is a root mean square norm.
Tensor layerNorm(Context&, const Tensor& x, const Norm&);

/// q [B, Lq, heads·d], k and v [B, Lk, heads·d] → [B, Lq, heads·d]; scale 1/√d.
Tensor attention(Context&, const Tensor& q, const Tensor& k, const Tensor& v, int heads, bool causal = false);
/// softmax(q kᵀ + bias) v, unscaled; bias [B or 1, heads, Lq, Lk] from uploadBias().
Tensor biasedAttention(Context&, const Tensor& q, const Tensor& k, const Tensor& v, int heads,
                       const Tensor& bias);
/// Host → what biasedAttention takes.
Tensor uploadBias(Context&, std::span<const float> host, const Shape& shape);

/// ids [B·length] → [B, length, C], plus positions.
Tensor embed(Context&, const WeightPtr& table, const WeightPtr& positions, std::span<const int32_t> ids,
             int64_t length);
Tensor activate(Context&, const Tensor& x, Activation, const Tensor* into = nullptr);
/// [B, H, W, C] → twice as large (nearest neighbour), or half as large (means of 2 × 2).
Tensor upsample(Context&, const Tensor& x);
Tensor averagePool(Context&, const Tensor& x);
/// a + scale · b, of the same shape; `into` may be a.
Tensor add(Context&, const Tensor& a, const Tensor& b, float scale = 1, const Tensor* into = nullptr);
/// x [..., C] as a matrix → [rows.size(), C].
Tensor gatherRows(Context&, const Tensor& x, std::span<const int32_t> rows);
/// Writes the first of `copies` equal parts of x's first dimension into the others.
void repeatFirst(Context&, const Tensor& x, int64_t copies);
/// Side by side along the last dimension.
Tensor concatColumns(Context&, std::span<const Tensor> parts);

/// Host float32 → a new tensor.
Tensor upload(Context&, std::span<const float> host, const Shape& shape);
/// Host NCHW float32 → a new NHWC tensor.
Tensor uploadImage(Context&, const float* nchw, int64_t batch, int64_t channels, int64_t height,
                   int64_t width);

/// Columns [start, start + width) of every row: no copy.
Tensor columns(Context&, const Tensor& x, int64_t start, int64_t width);
/// Entries [start, start + count) of the first dimension: no copy.
Tensor slice(Context&, const Tensor& x, int64_t start, int64_t count);
/// The same memory under another shape.
Tensor reshape(const Tensor& x, const Shape& shape);

}  // namespace nd
