// The operations of SD1.5 at 512², SD2.1 at 768² and SDXL at 1024², with guidance (batch 2), and of their VAE
// decoders, at their real shapes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nd::bench {

struct GpuOperation {
  std::string model, kind;  // "linear", "geglu", "conv", "attention", "groupNorm", "layerNorm"
  // linear, geglu: [m, k] → [m, n]. conv: [b, h, w, k (+ skip)] → n channels. attention: b, m queries, l
  // keys, heads · d. groupNorm: [b, h, w, k], 32 groups. layerNorm: [m, k].
  int64_t b = 1, m = 0, n = 0, k = 0, h = 0, w = 0, skip = 0, l = 0, heads = 0, d = 0;
  int kernel = 1, stride = 1;
  bool up = false;  // of a map half as large

  std::string name() const;
  double flops() const;  // 2 per multiply-add; 0 for norms
  double bytes() const;  // every input and result once
};

std::vector<GpuOperation> gpuOperations(const std::string& model);

}  // namespace nd::bench
