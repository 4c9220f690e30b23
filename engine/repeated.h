// Work that asks for the same operations over the same memory every time, as one evaluation of the UNet does
// in every step: a backend that can record it replays it, which spares the queueing of a thousand operations.
#pragma once

#include <functional>

#include "engine/ops.h"

namespace nd {

class Repeated {
 public:
  /// Runs `body`: as it is the first time (the arena grows to its size then), recorded the second time, and
  /// from then on only the recording is replayed. So everything that differs from one time to the next must
  /// lie in memory that was written before the call, at the same addresses (the arena's mark is the same),
  /// and `body` must neither upload nor download. On backends that do not record, and while operations are
  /// timed, `body` runs every time.
  void operator()(Context&, const std::function<void()>& body);

 private:
  std::shared_ptr<Recording> recording_;
  bool ran_ = false;
};

}  // namespace nd
