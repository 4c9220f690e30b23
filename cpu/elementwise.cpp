// Drivers of the elementwise kernels.
#include <algorithm>

#include "cpu/ceil-div.h"
#include "cpu/cpu-backend.h"

namespace nd {

void CpuBackend::activate(Tensor x, Activation activation, Tensor y) {
  constexpr int64_t kTaskFloats = 16384;  // long enough that handing out a task costs nothing beside it
  const Act act = static_cast<Act>(activation);
  if (x.contiguous() && y.contiguous()) {
    const int64_t count = x.shape.count();
    pool_.parallelFor(ceilDiv(count, kTaskFloats), [&](int64_t task, int) {
      const int64_t begin = task * kTaskFloats;
      k_.activate(x.f32() + begin, y.f32() + begin, std::min(kTaskFloats, count - begin), act);
    });
    return;
  }
  const int64_t rows = x.shape.rows(), width = x.shape.last(),
                band = std::max<int64_t>(1, kTaskFloats / width);
  pool_.parallelFor(ceilDiv(rows, band), [&](int64_t task, int) {
    for (int64_t r = task * band, end = std::min(rows, r + band); r < end; r++)
      k_.activate(x.f32() + r * x.stride, y.f32() + r * y.stride, width, act);
  });
}

}  // namespace nd
