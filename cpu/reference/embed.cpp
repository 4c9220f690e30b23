// Embedding: y[i, :] = table[ids[i], :], plus the position's row where positions are given.
#include "cpu/reference/reference.h"

namespace nd {

void ReferenceBackend::embed(const EmbedArgs& a) {
  const ReferenceWeight& table = reference::weight(a.table);
  for (int64_t i = 0; i < a.y.shape.rows(); i++) {
    expect(a.ids[i] >= 0 && a.ids[i] < table.n, "embed: ids within the table");
    for (int64_t c = 0; c < table.k; c++)
      reference::row(a.y, i)[c] =
          table.at(a.ids[i], c) + (a.positions ? reference::weight(a.positions).at(i % a.length, c) : 0);
  }
}

}  // namespace nd
