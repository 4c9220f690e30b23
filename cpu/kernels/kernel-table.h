// The kernels of one instruction set as plain function pointers: filled by cpu/kernels/make-table.h in each unit
// of cpu/arch, chosen by cpu/dispatch.cpp, called by the drivers in cpu/*.cpp. No engine or library headers here:
// see the rule in vec.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nd {

/// engine/backend.h's Activation, value for value (cpu-backend.cpp asserts it).
enum class Act : int { None, Silu, Gelu, QuickGelu };

/// Upper bounds over all instruction sets, for fixed-size buffers in the drivers.
constexpr int kMaxMr = 14, kMaxNr = 48;

/// One micro-kernel call: acc[rows × nr] (+)= Σ over runs, Σ k in run: a[run][row][k] · b[k][0..nr).
/// A run is a k-range whose elements lie contiguously in every row.
struct GemmTile {
  const float* const* rows;  // [runs][rows of this tile] pointers, `rowStride` pointers from run to run
  int64_t rowStride;
  const int32_t* runLengths;  // [runs]
  int runs;
  const float* b;  // [Σ lengths][nr], 64-byte aligned
  float* acc;      // [rows][nr], 64-byte aligned
  bool first;      // start from zero instead of from acc
};

/// y = act(acc + bias + channelAdd) (+ residual) over one tile of `rows` rows and `columns` <= nr outputs.
/// Geglu: acc holds nr/2 values and then nr/2 gates; y gets (value + bias) · gelu(gate + gateBias), columns <= nr/2.
struct GemmEpilogue {
  const float* acc;  // [rows][nr]
  int rows, columns;
  const float* bias;             // [columns] or null; Geglu: of the values
  const float* gateBias;         // Geglu
  const float* const* channels;  // per row a [columns] vector to add, or null
  const float* residual;         // or null; may be y
  float* y;
  int64_t stride;  // of y and residual
  Act act;
};

struct KernelTable {
  const char* name;
  int width;  // floats in a vector

  // --- GEMM and convolution (gemm.h)
  int mr, nr;
  void (*gemmTile[kMaxMr])(const GemmTile&);  // [rows − 1]
  void (*gemmEpilogue)(const GemmEpilogue&);
  void (*gegluEpilogue)(const GemmEpilogue&);
  void (*widenF16)(const uint16_t* x, float* y, int64_t count);   // any count
  void (*widenBf16)(const uint16_t* x, float* y, int64_t count);

  // --- Attention (attention.h): slots of its own go here

  // --- Normalisation (norm.h): slots of its own go here

  // --- Elementwise (elementwise.h): slots of its own go here
};

}  // namespace nd
