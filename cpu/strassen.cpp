// Strassen's algorithm (Strassen 1969, "Gaussian Elimination is not Optimal"), one level, around the matrix
// micro-kernel (kernels/gemm.h) and the sums of kernels/strassen.h.
//
//   y = A B in quadrants:  A0 A1   B0 B1     A: rows 2i and 2i + 1 × two pieces of K that follow each other
//                          A2 A3   B2 B3     B: these pieces × two panels of weights that follow each other
//
//   task (some pairs of rows × some pairs of panels): for two pieces of K: for each of the seven products:
//     sums of rows → [pairs][length]; for pair of panels: sum of blocks → [length][NR] (L1), the product of
//     both (L1) → added to one or two of the task's [panel pairs][4 quadrants][pairs][NR]
//   after the last K the epilogue writes y
//
// Rows are paired with their neighbours, so that what comes out for an image depends neither on the batch nor
// on the number of threads.
//
// The eighth that is saved pays for sums: those of blocks count by the number of rows, those of rows by the
// number of panels, those into y by the length of a piece. Hence large tasks, of up to 160 KB of summed rows
// and 640 KB of quadrants, though the L2 cache is 512 KB: 64 and 256 KB were 1 to 3 % slower, 256 and 1024 KB
// no better.
//
// Measured (2026-11-24, AMD EPYC Zen 3, AVX2, two threads, strangers on the same cores; time of the plain
// product = 1, medians of pairs in turns): 2048×640×640 0.99, geglu 2048×5120×640 0.92, 2048×640×2560 0.92,
// 512×1280×1280 0.91, geglu 512×10240×1280 0.91, 512×1280×5120 0.89; in whole steps of SD1.5 the layers of
// 2048 rows together 0.88, those of 512 0.93. With K = 320, in pieces of 160: 1.00 to 1.05. Tried and lost:
// all five sums of rows made before the panels (0 to 3 % slower), and the seven blocks of a pair of panels at
// once (10 %: 70 KB leave the L1 cache and come back).
//
// Error, of normal inputs against double, K from 640 to 5120: rms 6.5e-7 of the outputs' own, the largest
// 1e-6 of the largest output; the plain sum's 3.2e-7 and 4e-7 to 7e-7. It goes by the largest elements of
// both rows of a pair, as with every such algorithm, and not by an element's own; what is infinite or NaN
// spoils all four quadrants.
#include "cpu/strassen.h"

#include <algorithm>

#include "cpu/ceil-div.h"
#include "cpu/cpu-backend.h"
#include "cpu/gemm-numbers.h"

namespace nd {

namespace {

/// A quadrant, or the sum or difference of two.
struct Operand {
  int first, second = -1;
  bool subtract = false;
};
struct Target {
  int quadrant = 0;
  Fold how = Fold::None;
};
struct Product {
  Operand a, b;
  Target first, second = {};
};

// In an order in which every quadrant of y is set before it is added to.
constexpr Product kProducts[7] = {
    {{0, 3}, {0, 3}, {0, Fold::Set}, {3, Fold::Set}},
    {{0}, {1, 3, true}, {1, Fold::Set}, {3, Fold::Add}},
    {{2, 3}, {0}, {2, Fold::Set}, {3, Fold::Subtract}},
    {{3}, {2, 0, true}, {0, Fold::Add}, {2, Fold::Add}},
    {{0, 1}, {3}, {0, Fold::Subtract}, {1, Fold::Add}},
    {{2, 0, true}, {0, 1}, {3, Fold::Add}},
    {{1, 3, true}, {2, 3}, {0, Fold::Add}},
};

constexpr int64_t kSumBytes = 160 << 10, kQuadrantBytes = 640 << 10;
constexpr int64_t kFloat = sizeof(float);

/// The length of the pieces that K is cut into, an even number of them; 0: there are none of whole vectors.
int64_t pieceLength(const KernelTable& k, int64_t all) {
  const int64_t most = kBlockBytes / (k.nr * kFloat);
  for (int64_t pieces = 2 * ceilDiv(all, 2 * most); pieces * k.nr <= all; pieces += 2)
    if (all % (pieces * k.nr) == 0) return all / pieces;
  return 0;
}

// Relative to the seven products of a pair of rows and a pair of panels: the sums that a pair of rows takes,
// and those of a pair of panels (instructions).
constexpr double kRowSums = 0.12, kPanelSums = 2;

/// How the work is cut: `rows` and `panels` are pairs, in the largest task.
struct Cut {
  int64_t length, allRows, allPanels;
  int64_t rowTasks = 0, rows = 0, panelTasks = 0, panels = 0;
  int64_t sumFloats, blockFloats, quadrantFloats;

  Cut(const KernelTable& k, int threads, int64_t m, const PackedWeight& w)
      : length(pieceLength(k, w.k)), allRows(m / 2), allPanels(w.panels / 2) {
    double bestCost = 0;
    const int64_t rowTasksLeast = ceilDiv(allRows, std::max<int64_t>(k.mr, kSumBytes / (length * kFloat)));
    for (int64_t r = rowTasksLeast; r <= std::min(allRows, rowTasksLeast + threads); r++) {
      const int64_t taskRows = ceilDiv(allRows, r);
      const int64_t panelsMost = std::max<int64_t>(1, kQuadrantBytes / (4 * taskRows * k.nr * kFloat));
      const int64_t panelTasksLeast = ceilDiv(allPanels, panelsMost);
      for (int64_t p = panelTasksLeast; p <= std::min(allPanels, panelTasksLeast + threads); p++) {
        const int64_t taskPanels = ceilDiv(allPanels, p);
        const double cost =
            static_cast<double>(ceilDiv(r * p, threads)) *
            (static_cast<double>(taskRows * taskPanels) + kRowSums * static_cast<double>(taskRows) +
             kPanelSums * static_cast<double>(taskPanels));
        if (rows > 0 && cost >= bestCost) continue;
        bestCost = cost, rowTasks = r, rows = taskRows, panelTasks = p, panels = taskPanels;
      }
    }
    sumFloats = lines<float>(rows * length), blockFloats = lines<float>(length * k.nr);
    quadrantFloats = lines<float>(rows * k.nr);
  }
};

/// Some pairs of rows times some pairs of panels.
class Task {
 public:
  Task(const KernelTable& k, const Cut& cut, const PackedWeight& w, const GemmInput& in, Scratch& scratch,
       int64_t task)
      : k_(k), cut_(cut), w_(w), stride_(in.source[0].stride) {
    const int64_t r = task % cut.rowTasks, p = task / cut.rowTasks;
    row_ = cut.allRows * r / cut.rowTasks, rows_ = cut.allRows * (r + 1) / cut.rowTasks - row_;
    panel_ = cut.allPanels * p / cut.panelTasks, panels_ = cut.allPanels * (p + 1) / cut.panelTasks - panel_;
    x_ = in.source[0].data + 2 * row_ * stride_;

    const int64_t quadrants = 4 * cut.panels * cut.quadrantFloats;
    block_ = scratch.floats(cut.blockFloats + cut.quadrantFloats + cut.sumFloats + quadrants +
                            lines<const float*>(cut.rows));
    product_ = block_ + cut.blockFloats;
    sums_ = product_ + cut.quadrantFloats;
    quadrants_ = sums_ + cut.sumFloats;
    pointers_ = reinterpret_cast<const float**>(quadrants_ + quadrants);
  }

  void multiply() {
    for (int64_t k0 = 0; k0 < w_.k; k0 += 2 * cut_.length)
      for (const Product& product : kProducts) {
        findRows(product.a, k0);
        for (int64_t p = 0; p < panels_; p++) multiplyPanels(product, k0, p);
      }
  }

  void finish(const GemmOutput& out) const {
    for (int64_t p = 0; p < panels_; p++)
      for (int q = 0; q < 4; q++)
        for (int64_t i = 0; i < rows_; i += k_.mr)
          finishTile(k_, w_, out, quadrant(p, q) + i * k_.nr, 2 * (row_ + i) + q / 2, 2,
                     static_cast<int>(std::min<int64_t>(k_.mr, rows_ - i)), 2 * (panel_ + p) + q % 2);
  }

 private:
  float* quadrant(int64_t panels, int q) const { return quadrants_ + (4 * panels + q) * cut_.quadrantFloats; }

  /// Pointers to the rows of a sum of quadrants of A, or of one of them where they lie.
  void findRows(const Operand& operand, int64_t k0) {
    const auto quadrantOf = [&](int q) { return x_ + q / 2 * stride_ + k0 + q % 2 * cut_.length; };
    const float* const first = quadrantOf(operand.first);
    if (operand.second < 0) {
      for (int64_t i = 0; i < rows_; i++) pointers_[i] = first + 2 * i * stride_;
      return;
    }
    const float* const second = quadrantOf(operand.second);
    for (int64_t i = 0; i < rows_; i++) {
      float* const to = sums_ + i * cut_.length;
      k_.combine({first + 2 * i * stride_, second + 2 * i * stride_, WeightFormat::F32, operand.subtract,
                  cut_.length, to});
      pointers_[i] = to;
    }
  }

  /// A sum of quadrants of B, or one of them, as float32.
  const float* blockOf(const Operand& operand, int64_t k0, int64_t panels) const {
    const auto element = [&](int q) {
      return ((2 * (panel_ + panels) + q % 2) * w_.k + k0 + q / 2 * cut_.length) * k_.nr;
    };
    const int64_t first = element(operand.first), count = cut_.length * k_.nr;
    if (operand.second < 0) return asFloats(k_, w_, first, count, block_);
    k_.combine(
        {w_.element(first), w_.element(element(operand.second)), w_.format, operand.subtract, count, block_});
    return block_;
  }

  void multiplyPanels(const Product& product, int64_t k0, int64_t panels) {
    const int32_t length = static_cast<int32_t>(cut_.length);
    k_.gemmRows({pointers_, 0, &length, 1, blockOf(product.b, k0, panels), product_, rows_, true});
    const auto how = [&](const Target& target) {
      return k0 > 0 && target.how == Fold::Set ? Fold::Add : target.how;
    };
    k_.fold({product_, rows_ * k_.nr, quadrant(panels, product.first.quadrant),
             quadrant(panels, product.second.quadrant), how(product.first), how(product.second)});
  }

  const KernelTable& k_;
  const Cut& cut_;
  const PackedWeight& w_;
  const int64_t stride_;
  const float* x_;
  int64_t row_, rows_, panel_, panels_;
  float *block_, *product_, *sums_, *quadrants_;
  const float** pointers_;
};

}  // namespace

bool useStrassen(FewerProducts use, const KernelTable& k, int64_t rowsPerImage, const PackedWeight& w,
                 const GemmInput& in) {
  if (!in.rows || in.source[1].channels > 0 || rowsPerImage % 2 != 0 || w.panels % 2 != 0) return false;
  const int64_t length = pieceLength(k, w.k);
  if (length == 0 || use != FewerProducts::WhereFaster) return length > 0 && use == FewerProducts::Always;
  // Measured with AVX2 only. Shorter pieces and fewer rows leave nothing of the eighth (above).
  return k.width == 8 && length >= 320 && rowsPerImage >= 256;
}

void strassen(const KernelTable& k, ThreadPool& pool, std::vector<Scratch>& scratch, int64_t m,
              const PackedWeight& w, const GemmInput& in, const GemmOutput& out) {
  const Cut cut(k, pool.threads(), m, w);
  pool.parallelFor(cut.rowTasks * cut.panelTasks, [&](int64_t i, int thread) {
    Task task(k, cut, w, in, scratch[thread], i);
    task.multiply();
    task.finish(out);
  });
}

}  // namespace nd
