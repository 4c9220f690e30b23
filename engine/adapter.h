// Adapters that change weights: LoRA (Hu et al. 2021), LoCon, LoHa and LoKr (LyCORIS, Yeh et al. 2023), DoRA
// (Liu et al. 2024) and plain differences. W becomes W + strength · alpha/rank · Δ, in float32; which stored
// tensor changes which weight is decided in lib/adapters.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/ops.h"
#include "engine/safetensors.h"
#include "engine/weight-loader.h"

namespace nd {

enum class ChangeKind : uint8_t {
  LowRank,  // up [N, r] · down [r, K]; with mid [r, r, kh, kw] (LoCon): Σ up[n, a] mid[a, b, …] down[b, c]
  Hadamard,    // (w1a · w1b) ⊙ (w2a · w2b); with t1, t2 each factor is rebuilt as LoCon's is
  Kronecker,   // w1 ⊗ w2, each whole or as the product wa · wb; with t2 the second as LoCon's
  Difference,  // diff, of the weight's own shape
};

/// How the magnitude vector m of DoRA is meant. With D = alpha/rank · Δ:
enum class Magnitude : uint8_t {
  Merged,  // kohya, LyCORIS: W += strength · (m · (W + D) / ‖W + D‖ − W)
  Scaled,  // PEFT: W = m · (W + strength · D) / ‖W + strength · D‖
};

/// How one adapter changes one tensor.
struct WeightChange {
  std::string component;  // "unet", "textEncoder"
  size_t index = 0;       // which one of them
  std::string tensor;     // canonical: "down_blocks.0.attentions.0.proj_in.weight"
  ChangeKind kind = ChangeKind::LowRank;
  /// Role → name in the file: up, down, mid; w1, w1a, w1b, w2, …; diff; and magnitude (DoRA), alpha (a
  /// number).
  std::map<std::string, std::string> parts;
  double scale = 1;  // of Δ where there is no alpha
  double rank = 1;   // what alpha is divided by
  Magnitude magnitude = Magnitude::Merged;
};

/// A file of changes; its tensors stay in the mapped file.
class Adapter {
 public:
  /// Throws Error(ModelNotFound | ModelFormat).
  Adapter(const std::string& path, std::vector<WeightChange> changes);
  const std::vector<WeightChange>& changes() const { return changes_; }
  /// Throws Error(ModelFormat) naming the tensor, what was expected and what came where the change does not
  /// fit a weight of this shape.
  void check(const WeightChange&, const Shape& weight) const;
  /// The changed weight, in place: values of that shape.
  void apply(Context&, const WeightChange&, double strength, const Shape& shape, float* values) const;

 private:
  HostTensor part(const WeightChange&, const char* role) const;
  std::vector<float> values(const WeightChange&, const char* role) const;
  std::vector<float> delta(Context&, const WeightChange&, const Shape& shape) const;
  std::vector<float> factor(Context&, const WeightChange&, const std::string& name, int64_t rows,
                            int64_t columns, int64_t taps) const;

  std::shared_ptr<const SafetensorsFile> file_;
  std::vector<WeightChange> changes_;
};

/// The adapters of one component and their strengths, as WeightLoader asks for them. Refers to the context.
class AdapterEdits final : public WeightEdits {
 public:
  explicit AdapterEdits(Context& context) : context_(context) {}
  /// The adapter's changes of this component follow those added before. `id` tells adapters apart.
  void add(uint32_t id, const std::shared_ptr<const Adapter>&, const std::string& component, size_t index,
           double strength);
  /// Adapters and strengths in order; empty where nothing changes.
  const std::string& description() const { return description_; }

  std::string key(const std::string& tensor) const override;
  void apply(const std::string& tensor, const HostTensor& stored, float* changed) const override;

 private:
  struct Edit {
    std::shared_ptr<const Adapter> adapter;
    const WeightChange* change;
    double strength;
    std::string key;
  };
  Context& context_;
  std::unordered_map<std::string, std::vector<Edit>> edits_;
  std::string description_;
};

}  // namespace nd
