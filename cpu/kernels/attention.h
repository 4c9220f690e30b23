// Attention for one block of queries of one head: softmax(scale · q kᵀ) v with a running softmax (Milakov &
// Gimelshein 2018; FlashAttention, Dao et al. 2022), so that no Lq × Lk buffer exists.
//
// Everything is transposed, queries along the vector lanes, one panel of kNr queries at a time:
//   Sᵀ[keys, NR] = K[keys, d] · Qᵀ[d, NR]          scale · log₂e lies in Qᵀ
//   m' = max(m, max over keys of Sᵀ), Pᵀ = 2^(Sᵀ − m'), l = l · 2^(m − m') + Σ Pᵀ
//   Oᵀ[d, NR] = Oᵀ · 2^(m − m') + Vᵀ[d, keys] · Pᵀ[keys, NR]        y = (Oᵀ / l)ᵀ
// Both products are the GEMM micro-kernel with K's and Vᵀ's rows broadcast; maxima, exponentials and sums run
// down the lanes without a horizontal step; d is a row count, so that no head dimension is padded (the last
// panel's queries are).
//
// Bound by the FMA units: 4·d·Lk·Lq FLOP per head against one exponential per score (about 20 instructions
// per vector, an eighth of the work at d = 40). With few keys (cross-attention) by the latency of reading q
// and writing y.
//
// Measured (2026-11-23, AMD EPYC Zen 3, AVX2, one thread, processor time, other work on the machine, fp32
// peak 104 GFLOP/s; nd_bench, median of 7 runs and their range): 2×4096 d = 40 h = 8 63 (58 to 69), 2×1024 d
// = 80 65 (55 to 73), 2×256 d = 160 61 (44 to 64), 4096 × 77 d = 40 49 (36 to 52), 4096 d = 512 52 (50 to
// 54); the GEMM 8192×320×320 beside them 72 (59 to 83). Two things helped on 4096 × 77: prefetching q and y
// (from about 30 to 47 GFLOP/s) and taking all heads of a block of queries in turn (from 47 to 51). Other
// sizes of the blocks of keys and of the queries' state (3072 to 20480 and 8192 to 65536 floats) differed by
// less than the runs did. The kernel alone, in a minute when the cache was quiet (peak 100): 4096 d = 40 79,
// 1024 d = 80 87, 256 d = 160 84, 77 keys d = 40 67, d = 80 72; in a bad one 55 to 65 with the peak
// unchanged: strangers' threads on the same cores (gemm.h). Since then four k at a time and no call per tile:
// 4096 d = 40 6 % faster, 1024 d = 80 3 %, 4096 × 77 4 % (medians of pairs in turns), 256 d = 160 the same.
// Tried: exponentials as the scores leave the registers, against a reference that is rescaled only where a
// score exceeds it by 2^60, with a polynomial of degree 5: 80 to 81, 87 to 89, 84 to 86, 67 to 68, 72 to 73
// in the quiet minute, nothing in the bad one; not worth a second path.
#pragma once

#include "cpu/kernels/gemm.h"

namespace nd::ND_ISA {

/// 2^x for x <= 0, relative error 6e-8; x < −126.5 gives 0, NaN stays NaN.
ND_INLINE Vec exp2NonPositive(Vec x) {
  x = max(Vec::set(-127.0f), x);
  const Vec n = round(x), f = x - n;
  Vec p = Vec::set(0.00015345812f);  // minimax on |f| <= 1/2
  p = fma(p, f, Vec::set(0.0013399931f));
  p = fma(p, f, Vec::set(0.009618489f));
  p = fma(p, f, Vec::set(0.055503286f));
  p = fma(p, f, Vec::set(0.24022646f));
  p = fma(p, f, Vec::set(0.6931472f));
  p = fma(p, f, Vec::set(1.0f));
  return p * exponent(n);
}

/// c[count, NR] (+)= a[count rows, k] · b[k, NR]
inline void multiplyPanel(const float* const* rows, int64_t count, const float* b, int64_t k, float* c,
                          bool first) {
  const int32_t length = static_cast<int32_t>(k);
  gemmRows({rows, 0, &length, 1, b, c, count, first});
}

/// Turns a block of scores [keys, NR] into weights; updates the running maximum and sum [NR], writes what
/// earlier sums are to be multiplied by [NR].
inline void softmaxBlock(float* s, int keys, float* maximum, float* total, float* factor) {
  for (int j = 0; j < kNr; j += 2 * Vec::kWidth) {  // two chains hide the latency
    const Vec old0 = Vec::load(maximum + j), old1 = Vec::load(maximum + j + Vec::kWidth);
    Vec m0 = old0, m1 = old1;
    for (int i = 0; i < keys; i++) {
      m0 = max(m0, Vec::load(s + i * kNr + j));
      m1 = max(m1, Vec::load(s + i * kNr + j + Vec::kWidth));
    }
    Vec sum0 = Vec::zero(), sum1 = Vec::zero();
    for (int i = 0; i < keys; i++) {
      float* at = s + i * kNr + j;
      const Vec p0 = exp2NonPositive(Vec::load(at) - m0),
                p1 = exp2NonPositive(Vec::load(at + Vec::kWidth) - m1);
      p0.store(at), p1.store(at + Vec::kWidth);
      sum0 = sum0 + p0, sum1 = sum1 + p1;
    }
    const Vec factor0 = exp2NonPositive(old0 - m0), factor1 = exp2NonPositive(old1 - m1);
    m0.store(maximum + j), m1.store(maximum + j + Vec::kWidth);
    factor0.store(factor + j), factor1.store(factor + j + Vec::kWidth);
    fma(Vec::load(total + j), factor0, sum0).store(total + j);
    fma(Vec::load(total + j + Vec::kWidth), factor1, sum1).store(total + j + Vec::kWidth);
  }
}

/// Scores of keys after a query's own become −∞: row i of s is key `key + i`, lane j is query `query + j`.
inline void maskCausal(float* s, int keys, int64_t key, int64_t query) {
  float lanes[kNr];
  for (int j = 0; j < kNr; j++) lanes[j] = static_cast<float>(j);
  for (int i = 0; i < keys; i++) {
    const Vec own = Vec::set(static_cast<float>(key + i - query));
    for (int j = 0; j < kNr; j += Vec::kWidth) {
      float* at = s + i * kNr + j;
      select(Vec::load(lanes + j) < own, Vec::set(-__builtin_inff()), Vec::load(at)).store(at);
    }
  }
}

/// Adds a bias to scores that are in units of log₂e: row i of s is key `key + i`, lane j is query `query +
/// j`.
inline void addBias(const AttentionTask& t, float* s, int keys, int64_t key, int query, int lanes) {
  for (int j = 0; j < lanes; j++) {
    const float* bias = t.bias + (query + j) * t.biasStride + key;
    for (int i = 0; i < keys; i++) s[i * kNr + j] += bias[i] * 1.44269504f;
  }
}

/// Queries in a panel: kNr, fewer in the last one, 0 after it.
ND_INLINE int lanesOf(const AttentionTask& t, int panel) {
  const int left = t.queries - panel * kNr;
  return left < 0 ? 0 : left < kNr ? left : kNr;
}

/// Asks for the cache lines of a panel's rows of q (forWrite 0) or y (1): a head's stretch of a row is too
/// short for the hardware to foresee the next.
template <int forWrite>
ND_INLINE void prefetchPanel(const float* rows, int64_t stride, int count, int d) {
  for (int j = 0; j < count; j++)
    for (int c = 0; c < d; c += 16) __builtin_prefetch(rows + j * stride + c, forWrite);
}

inline void attentionQueries(const AttentionTask& t) {
  const int d = t.headDim, panels = (t.queries + kNr - 1) / kNr;
  const int64_t panelFloats = 2 * d * kNr + 2 * kNr;  // Qᵀ, Oᵀ, maximum, sum
  float* const factor = t.scratch + panels * panelFloats;
  float* const s = factor + kNr;
  const float** const kRows = reinterpret_cast<const float**>(s + t.blockKeys * kNr);
  const float** const vRows = kRows + t.blockKeys;

  prefetchPanel<0>(t.q, t.qStride, lanesOf(t, 0), d);
  prefetchPanel<1>(t.y, t.yStride, lanesOf(t, 0), d);
  for (int panel = 0; panel < panels; panel++) {
    float *q = t.scratch + panel * panelFloats, *state = q + 2 * d * kNr;
    const int lanes = lanesOf(t, panel);
    prefetchPanel<0>(t.q + (panel + 1) * kNr * t.qStride, t.qStride, lanesOf(t, panel + 1), d);
    for (int j = 0; j < kNr; j++) {
      const float* row =
          t.q + (panel * kNr + (j < lanes ? j : 0)) * t.qStride;  // lanes past the end repeat a query
      for (int c = 0; c < d; c++) q[c * kNr + j] = row[c] * t.scale;
      state[j] = -__builtin_inff(), state[kNr + j] = 0;
    }
  }

  for (int64_t key = 0; key < t.keys; key += t.blockKeys) {
    const int64_t block = t.keys - key < t.blockKeys ? t.keys - key : t.blockKeys;
    for (int64_t i = 0; i < block; i++) kRows[i] = t.k + (key + i) * d;
    for (int c = 0; c < d; c++) vRows[c] = t.v + key * d + c * t.blockKeys;
    for (int panel = 0; panel < panels; panel++) {
      float *q = t.scratch + panel * panelFloats, *o = q + d * kNr, *maximum = o + d * kNr,
            *total = maximum + kNr;
      const int64_t query = t.firstQuery + panel * kNr;
      int64_t keys = block;
      if (t.causal && key + keys > query + kNr) keys = query + kNr - key;
      if (keys <= 0) continue;  // every key of the block comes after every query of the panel
      multiplyPanel(kRows, keys, q, d, s, true);
      if (t.bias) addBias(t, s, static_cast<int>(keys), key, panel * kNr, lanesOf(t, panel));
      if (t.causal && key + keys > query + 1) maskCausal(s, static_cast<int>(keys), key, query);
      softmaxBlock(s, static_cast<int>(keys), maximum, total, factor);
      if (key > 0)
        for (int c = 0; c < d; c++)
          for (int j = 0; j < kNr; j += Vec::kWidth)
            (Vec::load(o + c * kNr + j) * Vec::load(factor + j)).store(o + c * kNr + j);
      multiplyPanel(vRows, d, s, keys, o, key == 0);
    }
  }

  for (int panel = 0; panel < panels; panel++) {
    const float *o = t.scratch + panel * panelFloats + d * kNr, *total = o + d * kNr + kNr;
    const int lanes = lanesOf(t, panel);
    prefetchPanel<1>(t.y + (panel + 1) * kNr * t.yStride, t.yStride, lanesOf(t, panel + 1), d);
    for (int j = 0; j < lanes; j++) {
      const float scale = 1.0f / total[j];
      float* y = t.y + (panel * kNr + j) * t.yStride;
      for (int c = 0; c < d; c++) y[c] = o[c * kNr + j] * scale;
    }
  }
}

}  // namespace nd::ND_ISA
