// Fills the kernel table of the unit that includes it.
#pragma once

#include "cpu/kernels/attention.h"
#include "cpu/kernels/elementwise.h"
#include "cpu/kernels/gemm.h"
#include "cpu/kernels/kernel-table.h"
#include "cpu/kernels/norm.h"
#include "cpu/kernels/strassen.h"
#include "cpu/kernels/winograd.h"

namespace nd::ND_ISA {

inline KernelTable makeTable(const char* name) {
  KernelTable t = {};
  t.name = name;
  t.width = Vec::kWidth;

  t.mr = kMr, t.nr = kNr;
  t.gemmRows = gemmRows;
  t.gemmEpilogue = gemmEpilogue;
  t.gegluEpilogue = gegluEpilogue;
  t.widenF16 = widenF16;
  t.widenBf16 = widenBf16;

  t.combine = combine;
  t.fold = fold;

  t.winogradInput = winogradInput;
  t.winogradFilters = winogradFilters;
  t.winogradOutput = winogradOutput;

  t.attentionQueries = attentionQueries;

  t.columnSums = columnSums;
  t.normApply = normApply;
  t.layerNormRows = layerNormRows;

  t.activate = activateMany;
  return t;
}

}  // namespace nd::ND_ISA
