// matmul.h for Hopper (capability 9.0).
#pragma once

#include "cuda/kernels/matmul-params.h"

namespace nd::cuda {

/// How a block's 128 rows lie among the pixels of the result, the columns of its tile, and what it may cost.
struct HopperTile {
  int boxW = 0, boxH = 0, boxB = 0;  // boxW · boxH · boxB = 128
  int n = 0;
  double clocks = 0;
};
/// The cheapest tile; n 0 where the tensor copy engine cannot fetch the input: strides, resizing, rows that
/// are not aligned.
HopperTile chooseHopperTile(const MatmulProblem& problem, int multiprocessors);

template <class T>
void matmulHopper(const Launch& launch, const MatmulProblem& problem, const MatmulParams<T>& params,
                  const HopperTile& tile);

}  // namespace nd::cuda
