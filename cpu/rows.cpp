// Operations that move or add whole rows; bound by memory, so plain loops that the compiler vectorises are
// enough.
#include <algorithm>
#include <cstring>

#include "cpu/ceil-div.h"
#include "cpu/cpu-backend.h"
#include "cpu/weights.h"

namespace nd {

namespace {
constexpr int64_t kTaskFloats = 1 << 15;  // 128 KB per task

float* row(const Tensor& t, int64_t i) { return t.f32() + i * t.stride; }

/// Calls body(row) for every row, several rows to a task.
template <class Body>
void forRows(ThreadPool& pool, int64_t rows, int64_t columns, Body&& body) {
  const int64_t perTask = std::max<int64_t>(1, kTaskFloats / std::max<int64_t>(1, columns));
  pool.parallelFor(ceilDiv(rows, perTask), [&](int64_t task, int) {
    for (int64_t r = task * perTask, end = std::min(rows, r + perTask); r < end; r++) body(r);
  });
}
}  // namespace

void CpuBackend::add(Tensor a, Tensor b, float scale, Tensor y) {
  const int64_t columns = y.shape.last();
  forRows(pool_, y.shape.rows(), columns, [&](int64_t r) {
    const float *p = row(a, r), *q = row(b, r);
    float* to = row(y, r);
    for (int64_t c = 0; c < columns; c++) to[c] = p[c] + scale * q[c];
  });
}

void CpuBackend::gatherRows(Tensor x, const int32_t* rows, Tensor y) {
  const int64_t limit = x.shape.rows(), columns = y.shape.last();
  for (int64_t r = 0, count = y.shape.rows(); r < count; r++) {
    expect(rows[r] >= 0 && rows[r] < limit, "gatherRows: rows within x");
    std::memcpy(row(y, r), row(x, rows[r]), columns * sizeof(float));
  }
}

void CpuBackend::copyColumns(Tensor x, Tensor y, int64_t column) {
  const int64_t columns = x.shape.last();
  forRows(pool_, x.shape.rows(), columns,
          [&](int64_t r) { std::memcpy(row(y, r) + column, row(x, r), columns * sizeof(float)); });
}

void CpuBackend::embed(const EmbedArgs& a) {
  const PackedWeight& table = packed(a.table);
  float* position = shared_.floats(table.k);
  for (int64_t i = 0, count = a.y.shape.rows(); i < count; i++) {
    expect(a.ids[i] >= 0 && a.ids[i] < table.n, "embed: ids within the table");
    float* to = row(a.y, i);
    tableRow(k_, table, a.ids[i], to);
    if (!a.positions) continue;
    tableRow(k_, packed(a.positions), i % a.length, position);
    for (int64_t c = 0; c < table.k; c++) to[c] += position[c];
  }
}

}  // namespace nd
