// Fills the kernel table of the unit that includes it.
#pragma once

#include "cpu/kernels/gemm.h"
#include "cpu/kernels/kernel-table.h"

namespace nd::ND_ISA {

inline void fillTable(KernelTable& t, const char* name) {
  t.name = name;
  t.width = Vec::kWidth;

  t.mr = kMr, t.nr = kNr;
  fillGemmTiles(t.gemmTile);
  t.gemmEpilogue = gemmEpilogue;
  t.gegluEpilogue = gegluEpilogue;
  t.widenF16 = widenF16;
  t.widenBf16 = widenBf16;

  // --- Attention: its slots are filled here

  // --- Normalisation: its slots are filled here

  // --- Elementwise: its slots are filled here
}

}  // namespace nd::ND_ISA
