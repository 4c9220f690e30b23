// Weights of the reference backend: checked, converted to float32, parts stacked in order.
#include "cpu/reference/reference.h"
#include "engine/weight-parts.h"

namespace nd {

WeightPtr ReferenceBackend::makeWeight(WeightKind kind, std::span<const HostTensor> parts) {
  const WeightMatrix matrix = checkWeightParts(kind, parts);
  auto weight = std::make_unique<ReferenceWeight>();
  weight->kind = kind;
  weight->n = kind == WeightKind::Geglu ? matrix.rows / 2 : matrix.rows;
  weight->k = matrix.columns;
  weight->values.reserve(matrix.rows * matrix.columns);
  for (const HostTensor& part : parts)
    for (int64_t i = 0, count = part.shape.count(); i < count; i++)
      weight->values.push_back(weightValue(part, i));

  *weightBytes_ += weight->bytes();
  return {weight.release(), [counter = weightBytes_](const ReferenceWeight* w) {
            *counter -= w->bytes();
            delete w;
          }};
}

}  // namespace nd
