// The kernels of one instruction set as plain function pointers: filled by cpu/kernels/make-table.h in each
// unit of cpu/arch, chosen by cpu/dispatch.cpp, called by the drivers in cpu/*.cpp. No engine or library
// headers here: see the rule in vec.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nd {

/// engine/backend.h's Activation, value for value (cpu-backend.cpp asserts it).
enum class Act : int { None, Silu, Gelu, QuickGelu, Relu, GeluTanh };

/// How a matrix weight's elements are stored.
enum class WeightFormat : uint8_t { F32, F16, BF16 };

/// An upper bound over all instruction sets, for fixed-size buffers in the drivers.
constexpr int kMaxTileRows = 32;

/// One call of the micro-kernel: acc[count × nr] (+)= Σ over runs, Σ k in run: a[run][row][k] · b[k][0..nr).
/// A run is a k-range whose elements lie contiguously in every row.
template <class T>
struct GemmRowsOf {
  const T* const* rows;  // [runs][count] pointers, `rowStride` pointers from run to run
  int64_t rowStride;
  const int32_t* runLengths;  // [runs]
  int runs;
  const T* b;     // [Σ lengths][nr], 64-byte aligned
  float* acc;     // [count][nr], 64-byte aligned
  int64_t count;  // at least 1; more than mr are cut into tiles of nearly equal height
  bool first;     // start from zero instead of from acc
};
using GemmRows = GemmRowsOf<float>;
/// In bfloat16: b is [Σ ⌈length / 2⌉][nr][2]. Rows are 4-byte aligned, and one zero follows a run of odd
/// length.
using Bf16Rows = GemmRowsOf<uint16_t>;

/// to = x + y or x − y, widened.
struct Combination {
  const void *x, *y;  // in `format`
  WeightFormat format;
  bool subtract;
  int64_t count;  // a multiple of nr
  float* to;
};

/// What a product does to what it is folded into.
enum class Fold : uint8_t { None, Set, Add, Subtract };

struct FoldedProduct {
  const float* product;
  int64_t count;  // a multiple of nr
  float *first, *second;
  Fold howFirst, howSecond;
};

/// One call of a matrix unit: acc[rows × nr] (+)= a[rows, k] · b[k, nr] in bfloat16. Rows up to the unit's
/// number are read and their sums written, whatever they hold.
struct UnitTile {
  const uint16_t* a;  // the first row
  int64_t stride;     // elements from row to row
  int64_t k;          // a multiple of the unit's step, with zeros beyond what there is
  const uint16_t* b;  // [k / 2][nr][2], 64-byte aligned
  float* acc;         // [the unit's rows][nr], 64-byte aligned
  int rows;
  bool first;  // start from zero instead of from acc
};

/// A matrix unit, whose rows lie evenly spaced.
struct MatrixUnit {
  int rows = 0;  // of its tile; 0: there is none
  int step = 0;  // of k
  void (*multiply)(const UnitTile&) = nullptr;
  void (*enter)() = nullptr, (*leave)() = nullptr;  // around a thread's calls
};

/// y = act(acc + bias + channelAdd) (+ residual) over one tile of `rows` rows and `columns` <= nr outputs.
/// Geglu: acc holds nr/2 values and then nr/2 gates; y gets (value + bias) · gelu(gate + gateBias), columns
/// <= nr/2.
struct GemmEpilogue {
  const float* acc;  // [rows][nr]
  int rows, columns;
  const float* bias;             // [columns] or null; Geglu: of the values
  const float* gateBias;         // Geglu
  const float* const* channels;  // per row a [columns] vector to add, or null
  const float* residual;         // or null; may be y
  int64_t residualStride;
  float* y;
  int64_t stride;
  Act act;
};

/// A patch of 6 × 6 pixels for Winograd's convolution (winograd.h): 36 vectors of `channels`, transformed.
struct WinogradInput {
  const float* const* pixels;  // [36] row by row, each `channels` floats
  int64_t channels;
  float* v;        // [36] vectors
  int64_t stride;  // floats from vector to vector
};

/// 3 × 3 filters of a panel for some of its channels: g [9 taps][channels][nr] → u [36 points][channels][nr].
struct WinogradFilters {
  const void* g;  // in `format`
  WeightFormat format;
  int64_t tapStride;  // elements from tap to tap
  int64_t channels;
  float* u;
  int64_t stride;  // floats from point to point
};

/// m [36][features] → a tile of up to 4 × 4 pixels, with the epilogue of GemmEpilogue.
struct WinogradOutput {
  const float* m;         // whole vectors are read
  int64_t mStride;        // floats from row to row of m
  int features;           // at most nr
  int rows, columns;      // pixels of the tile that exist, at most 4 × 4
  const float* bias;      // [features] or null
  const float* channels;  // [features] or null
  const float* residual;  // of the first pixel, or null; may be y
  int64_t residualRow, residualPixel;
  float* y;
  int64_t yRow, yPixel;  // floats from row to row and from pixel to pixel
  Act act;
};

/// A block of queries of one head against all keys (attention.h).
struct AttentionTask {
  const float* q;  // [queries] rows of d, `qStride` apart
  int64_t qStride;
  int queries;
  int64_t firstQuery;  // index of the first one: what causal attention compares keys with
  const float* k;      // [keys][d]
  const float* v;      // transposed by blocks: [block of blockKeys keys][d][blockKeys]
  int64_t keys;
  int blockKeys;
  int headDim;
  float scale;  // of the scores, times log₂ e
  bool causal;
  const float* bias;  // of the first query, [queries] rows `biasStride` apart, one value per key; or null
  int64_t biasStride;
  float* y;  // [queries] rows of d, `yStride` apart
  int64_t yStride;
  // 64-byte aligned: per panel of nr queries 2 · (headDim + 1) · nr floats, then (blockKeys + 1) · nr floats,
  // then blockKeys + headDim pointers.
  float* scratch;
};

/// y = act((x − mean) · scale + offset), per channel, over `rows` rows (norm.h).
struct NormApply {
  const float* x;
  int64_t xStride;
  float* y;  // may be x
  int64_t yStride;
  int64_t rows, channels;
  const float *mean, *scale, *offset;  // [channels]
  Act act;                             // None, Silu or Gelu
};

/// y = gamma · (x − μ) / sqrt(σ² + epsilon) + beta, per row (norm.h).
struct LayerNormRows {
  const float* x;
  int64_t xStride;
  float* y;  // may be x
  int64_t yStride;
  int64_t rows, width;
  const float *gamma, *beta;  // [width]; beta may be null
  float epsilon;
  bool centred;  // else μ = 0
};

struct KernelTable {
  const char* name;
  int width;  // floats in a vector

  // --- GEMM and convolution (gemm.h)
  int mr, nr;
  void (*gemmRows)(const GemmRows&);
  void (*gemmEpilogue)(const GemmEpilogue&);
  void (*gegluEpilogue)(const GemmEpilogue&);
  void (*widenF16)(const uint16_t* x, float* y, int64_t count);  // any count
  void (*widenBf16)(const uint16_t* x, float* y, int64_t count);

  // --- Strassen's algorithm (strassen.h)
  void (*combine)(const Combination&);
  void (*fold)(const FoldedProduct&);

  // --- Winograd convolution (winograd.h)
  void (*winogradInput)(const WinogradInput&);
  void (*winogradFilters)(const WinogradFilters&);
  void (*winogradOutput)(const WinogradOutput&);

  // --- Attention (attention.h)
  void (*attentionQueries)(const AttentionTask&);

  // --- Normalisation (norm.h)
  void (*columnSums)(const float* x, int64_t stride, int64_t rows, int64_t channels, float* shift, float* sum,
                     float* squares);
  void (*normApply)(const NormApply&);
  void (*layerNormRows)(const LayerNormRows&);

  // --- Elementwise (elementwise.h)
  void (*activate)(const float* x, float* y, int64_t count, Act act);  // any count; y may be x
};

/// Matrix products of bfloat16 with float32 sums (bf16.h), beside a KernelTable of the same mr and nr.
struct Bf16Kernels {
  const char* name;  // what computes them: "AVX512_BF16"
  void (*gemmRows)(const Bf16Rows&);
  /// Rounds a row, to nearest even; where `count` is odd a zero follows.
  void (*roundRow)(const float* x, uint16_t* y, int64_t count);
  /// `count` rows of nr stored weights → [⌈count / 2⌉][nr][2], rounded; with zeros in place of a last row.
  void (*pairRows)(const void* rows, WeightFormat format, int64_t count, uint16_t* to);
  MatrixUnit unit;  // where there is one it takes gemmRows' place
};

}  // namespace nd
