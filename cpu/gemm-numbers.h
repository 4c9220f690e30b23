// The numbers that a matrix product is computed in: how rows and weights become operands, and which kernel
// multiplies a tile. gemm.cpp's loop is the same for all.
//   together()   elements of K that are multiplied at once: blocks are cut between such groups, and the last
//                one is filled up with zeros
//   operand()    the rows of a block, after findRows()
//   block()      one block of one panel of weights
//   tile()       rows × nr of the product
#pragma once

#include <cstring>

#include "cpu/ceil-div.h"
#include "cpu/cpu-backend.h"
#include "cpu/gemm-plan.h"

namespace nd {

/// Floats of whole cache lines that hold `count` elements of T.
template <class T>
int64_t lines(int64_t count) {
  return ceilDiv(count * static_cast<int64_t>(sizeof(T)), 64) * 16;
}

/// A block's rows where they lie: for run r, row i begins at rows[r · apart + i].
template <class T>
struct RowPointers {
  const T* const* rows;
  int64_t apart;
  const int32_t* runLengths;
  int runs;
};

/// Products of float32.
class Float32 {
 public:
  using Element = float;

  Float32(const KernelTable& k, const GemmInput& in) : k_(k) {
    for (int s = 0; s < 2; s++) pixels_[s] = {in.source[s].data, in.source[s].stride};
  }
  const Pixels<float>& pixels(int source) const { return pixels_[source]; }
  int tileRows() const { return k_.mr; }
  int together() const { return 1; }
  int64_t gathered(int64_t, int64_t) const { return 0; }  // elements of a buffer for operand()
  void enter() const {}
  void leave() const {}

  RowPointers<float> operand(const KPlan& plan, const KBlock& block, const float* const* rows, int64_t count,
                             float*) const {
    return {rows, count, plan.lengths.data() + block.first, block.runs};
  }

  /// Where it is stored so, else in `to`.
  const float* block(const PackedWeight& w, int64_t panel, const KPlan&, const KBlock& block,
                     float* to) const {
    return asFloats(k_, w, (panel * w.k + block.k) * k_.nr, block.length * k_.nr, to);
  }

  void tile(const RowPointers<float>& a, int64_t row, int rows, const float* b, float* acc,
            bool first) const {
    k_.gemmRows({a.rows + row, a.apart, a.runLengths, a.runs, b, acc, rows, first});
  }

 private:
  const KernelTable& k_;
  Pixels<float> pixels_[2];
};

/// Products of bfloat16.
class Bfloat16 {
 public:
  using Element = uint16_t;

  /// Rounds the sources' `pixels` pixels into `copy`, whose rows are filled up with zeros to whole pairs.
  Bfloat16(const KernelTable& k, const Bf16Kernels& bf16, ThreadPool& pool, Scratch& copy,
           const GemmInput& in, int64_t pixels)
      : Bfloat16(k, bf16, pool, copy, in, pixels, 2, 0) {}

  const Pixels<uint16_t>& pixels(int source) const { return pixels_[source]; }
  int tileRows() const { return k_.mr; }
  int together() const { return together_; }
  int64_t gathered(int64_t, int64_t) const { return 0; }
  void enter() const {}
  void leave() const {}

  RowPointers<uint16_t> operand(const KPlan& plan, const KBlock& block, const uint16_t* const* rows,
                                int64_t count, uint16_t*) const {
    return {rows, count, plan.lengths.data() + block.first, block.runs};
  }

  /// As pairs, run by run: what is multiplied together never spans two runs.
  const uint16_t* block(const PackedWeight& w, int64_t panel, const KPlan& plan, const KBlock& block,
                        uint16_t* to) const {
    int64_t k = panel * w.k + block.k;
    uint16_t* next = to;
    for (int r = 0; r < block.runs; r++) {
      const int64_t length = plan.lengths[block.first + r], whole = filled(length);
      bf16_.pairRows(w.element(k * k_.nr), w.format, length, next);
      std::fill(next + filled(length, 2) * k_.nr, next + whole * k_.nr, uint16_t{0});
      k += length;
      next += whole * k_.nr;
    }
    return to;
  }

  void tile(const RowPointers<uint16_t>& a, int64_t row, int rows, const uint16_t* b, float* acc,
            bool first) const {
    bf16_.gemmRows({a.rows + row, a.apart, a.runLengths, a.runs, b, acc, rows, first});
  }

 protected:
  /// `extraRows` of anything follow each copy.
  Bfloat16(const KernelTable& k, const Bf16Kernels& bf16, ThreadPool& pool, Scratch& copy,
           const GemmInput& in, int64_t pixels, int together, int64_t extraRows)
      : k_(k), bf16_(bf16), together_(together) {
    int64_t floats[2];
    for (int s = 0; s < 2; s++) {
      pixels_[s].stride = filled(in.source[s].channels);
      floats[s] = lines<uint16_t>((pixels + extraRows) * pixels_[s].stride);
    }
    float* const memory = copy.floats(floats[0] + floats[1]);
    for (int s = 0; s < 2; s++) {
      const GemmInput::Source& source = in.source[s];
      if (source.channels == 0) continue;
      auto* const to = reinterpret_cast<uint16_t*>(memory + (s ? floats[0] : 0));
      const int64_t stride = pixels_[s].stride, tasks = std::min<int64_t>(pixels, 4 * pool.threads());
      pool.parallelFor(tasks, [&](int64_t task, int) {
        for (int64_t i = pixels * task / tasks, end = pixels * (task + 1) / tasks; i < end; i++)
          roundRow(source, i, to + i * stride);
      });
      pixels_[s].data = to;
    }
  }

  int64_t filled(int64_t k, int64_t to) const { return ceilDiv(k, to) * to; }
  int64_t filled(int64_t k) const { return filled(k, together_); }

  const KernelTable& k_;
  const Bf16Kernels& bf16_;
  const int together_;

 private:
  void roundRow(const GemmInput::Source& source, int64_t i, uint16_t* to) const {
    bf16_.roundRow(source.data + i * source.stride, to, source.channels);
    std::fill(to + filled(source.channels, 2), to + filled(source.channels), uint16_t{0});
  }

  Pixels<uint16_t> pixels_[2];
};

/// Products of bfloat16 in a matrix unit, which wants rows evenly spaced: a Linear's are, a convolution's are
/// gathered block by block.
class Bfloat16Unit : public Bfloat16 {
 public:
  Bfloat16Unit(const KernelTable& k, const Bf16Kernels& bf16, ThreadPool& pool, Scratch& copy,
               const GemmInput& in, int64_t pixels)
      : Bfloat16(k, bf16, pool, copy, in, pixels, bf16.unit.step, bf16.unit.rows),
        even_(in.rows && in.source[1].channels == 0) {}

  int tileRows() const { return bf16_.unit.rows; }
  int64_t gathered(int64_t rows, int64_t k) const { return even_ ? 0 : (rows + tileRows() - 1) * k; }
  void enter() const { bf16_.unit.enter(); }
  void leave() const { bf16_.unit.leave(); }

  struct Rows {
    const uint16_t* first;
    int64_t stride, k;
  };
  Rows operand(const KPlan& plan, const KBlock& block, const uint16_t* const* rows, int64_t count,
               uint16_t* gathered) const {
    int64_t k = 0;
    for (int r = 0; r < block.runs; r++) k += filled(plan.lengths[block.first + r]);
    if (even_) return {rows[0], pixels(0).stride, k};
    int64_t at = 0;
    for (int r = 0; r < block.runs; r++) {
      const int64_t length = filled(plan.lengths[block.first + r]);
      for (int64_t i = 0; i < count; i++)
        std::memcpy(gathered + i * k + at, rows[r * count + i], length * sizeof(uint16_t));
      at += length;
    }
    return {gathered, k, k};
  }

  void tile(const Rows& a, int64_t row, int rows, const uint16_t* b, float* acc, bool first) const {
    bf16_.unit.multiply({a.first + row * a.stride, a.stride, a.k, b, acc, rows, first});
  }

 private:
  const bool even_;
};

}  // namespace nd
