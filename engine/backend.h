// The interface between the engine and what computes: cpu/reference (the specification), cpu (SIMD), cuda.
// engine/ops.h checks shapes and allocates; a backend may trust them. Every operation is complete for the
// caller's next call in order (a GPU backend may queue it). Activations: see Tensor in tensor.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/plan.h"
#include "engine/tensor.h"

namespace nd {

enum class Activation : uint8_t {
  None,
  Silu,       // x · sigmoid(x)
  Gelu,       // x · Φ(x), exact (erf)
  QuickGelu,  // x · sigmoid(1.702 x)
  Relu,       // max(x, 0)
  GeluTanh,   // GELU's approximation x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))
};

/// How a weight will be used; the backend chooses its layout from it.
enum class WeightKind : uint8_t {
  Linear,  // parts [N_i, K], stacked along N: y = x Wᵀ. Trailing dimensions of 1 are dropped ([N, K, 1, 1])
  Geglu,   // one part [2N, K], or two [N, K]: rows 0..N−1 the value, N..2N−1 the gate: y = value ·
           // gelu(gate)
  Conv,    // one part [N, C, kh, kw]
  Vector,  // parts [N_i], stacked: biases, norm scales
  Table,   // one part [rows, C]: embeddings
};

/// Weights in a backend's own layout, in at most the bytes of the stored dtype (F8 becomes F16, which holds
/// all its values). Immutable after creation; may be shared by pipelines.
class Weight : public std::enable_shared_from_this<Weight> {
 public:
  virtual ~Weight() = default;
  virtual size_t bytes() const = 0;
  WeightKind kind = WeightKind::Vector;
  int64_t n = 0;  // output features (Geglu: after the gate), vector length, or table rows
  int64_t k = 0;  // input features: K, C·kh·kw, or table columns
};
using WeightPtr = std::shared_ptr<const Weight>;

/// y[M, N] = act(x[M, K] Wᵀ + bias) (+ residual).  Geglu: (value + b₁) · gelu(gate + b₂), with activation
/// GeluTanh its approximation.
struct LinearArgs {
  const Weight* weight;
  const Weight* bias = nullptr;  // [N] (Geglu: [2N], same order as the rows)
  Tensor x;                      // any rank; rows may be strided
  Tensor y;                      // contiguous
  Activation activation = Activation::None;
  const Tensor* residual = nullptr;  // like y; may be y itself
};

/// y[B, Ho, Wo, N] = act(conv([x | skip]) + bias + channelAdd) (+ residual), NHWC.
/// The input that the kernel slides over is x and skip concatenated along channels, resized by nearest
/// neighbour (source = floor(i · in / out), as torch) to inputH × inputW; outside it is zero, or goes round
/// to the other side. Neither is materialised.
struct ConvArgs {
  const Weight* weight;  // Conv [N, C1 + C2, kh, kw] (1×1 may also be a Linear weight)
  const Weight* bias = nullptr;
  Tensor x;                      // [B, H, W, C1]
  const Tensor* skip = nullptr;  // [B, H, W, C2]
  int kernelH = 3, kernelW = 3, stride = 1;
  int padTop = 1, padLeft = 1;         // bottom and right follow from y's size
  int64_t inputH = 0, inputW = 0;      // size after resizing; H and W where nothing is resized
  const Tensor* channelAdd = nullptr;  // [B, N], rows may be strided: the time embedding
  Activation activation = Activation::None;
  const Tensor* residual = nullptr;  // like y; may be y itself
  Tensor y;
  bool wrapX = false, wrapY = false;  // beyond an edge comes the opposite one (torch's circular padding)
};

/// y = act(γ (x − μ_g) / sqrt(σ²_g + ε) + β), statistics per image and group over [x | skip] (biased
/// variance).
struct GroupNormArgs {
  Tensor x;                      // [B, ..., C1]
  const Tensor* skip = nullptr;  // [B, ..., C2]: channels are concatenated, y has C1 + C2
  const Weight *gamma, *beta;
  int groups;
  float epsilon;
  Activation activation = Activation::None;  // None, Silu or Gelu
  Tensor y;                                  // contiguous; may be x where there is no skip
  /// Before the activation, values become value · (1 + scale) + shift: [B or 1, 2C], scales and then shifts;
  /// rows may be strided.
  const Tensor* modulation = nullptr;
};

/// Over the last dimension. Without `centred` it is a root mean square norm: μ = 0, so σ² = mean(x²).
struct LayerNormArgs {
  Tensor x, y;
  const Weight *gamma, *beta;  // beta may be null
  float epsilon;
  bool centred = true;
};

/// y[B, Lq, heads·d] = softmax(scale · q kᵀ) v per head, without an Lq × Lk buffer. Rows may be strided.
struct AttentionArgs {
  Tensor q;     // [B, Lq, heads·d]
  Tensor k, v;  // [B, Lk, heads·d]
  Tensor y;     // [B, Lq, heads·d], contiguous
  int heads;
  float scale;
  bool causal = false;  // query i sees keys 0..i
  /// Added to the scaled scores: [B or 1, heads, Lq, Lk], contiguous, float32 on every backend. Finite: what
  /// is not to be seen has a large negative one.
  const Tensor* bias = nullptr;
};

/// y[i, :] = table[ids[i], :] (+ positions[i mod length, :]).
struct EmbedArgs {
  const Weight* table;
  const Weight* positions = nullptr;
  const int32_t* ids;  // host, count = y.rows()
  int64_t length;      // tokens per sequence
  Tensor y;
};

/// One row of the step plan over latents, all float32 [B, C, H, W] on every backend (planTensor()).
/// In order: m from the branches (guidance, rescale), p, clip or threshold, h, the writes, the blend.
struct PlanStepArgs {
  const PlanRow* row;
  Tensor modelOutput;  // [branches·B, Cm, H, W] float32, branch-major; Cm = C, or 2C with learnedRange
  int branches;
  double guidanceRescale = 0;    // diffusers' guidance_rescale (the last branch has the prompt)
  Tensor state[kBasisCount];     // by Basis; x and registers are read and written; unused ones are empty
  const Tensor* mask = nullptr;  // [B, 1, H, W], 1 where repainted: outside it x becomes α·orig + σ·n0
  Tensor p;                      // out: predicted original
};
/// Throws Error(Internal) where a tensor that the row needs is missing or misshapen.
void checkPlanStep(const PlanStepArgs&);

/// Operations that a backend noted to run them again and again: a CUDA graph.
class Recording {
 public:
  virtual ~Recording() = default;
};

struct MemoryUse {
  size_t weights = 0;      // laid-out weights in use, those that other pipelines use too among them
  size_t activations = 0;  // allocate()d blocks alive; a reserved range is its arena's to count
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;         // "cpu", "cuda:0"
  virtual std::string description() const = 0;  // "AVX2+FMA, 2 threads"
  virtual size_t activationBytes() const = 0;   // per element: 4 on the CPU

  // Memory. allocate() throws Error(OutOfMemory); 64-byte aligned.
  virtual void* allocate(size_t bytes) = 0;
  virtual void deallocate(void* data, size_t bytes) = 0;
  /// A range of addresses for an arena, whose pages take memory only once they are touched, and its size;
  /// null where the backend has no such thing.
  virtual void* reserve(size_t& bytes);
  virtual void unreserve(void* data, size_t bytes);
  /// Called before the first `bytes` of a reserved range are used, for backends whose pages do not come by
  /// themselves. Throws Error(OutOfMemory); what was committed before stays usable.
  virtual void commit(void* range, size_t bytes);
  virtual MemoryUse memory() const = 0;
  /// Whether activations and weights have float32's range from now on, at the cost of digits: bfloat16 where
  /// it is float16 else. What was made in one range is of no use in the other. Returns what it was; backends
  /// in float32 have nothing to change.
  virtual bool setWideRange(bool wide);
  virtual WeightPtr makeWeight(WeightKind kind, std::span<const HostTensor> parts) = 0;
  /// Names the layout of its weights where another backend object of the same layout may use them too; empty
  /// where it may not.
  virtual std::string weightLayout() const { return {}; }
  /// A weight that another backend object of this layout made, as one that memory() counts here as well.
  virtual WeightPtr adopt(WeightPtr weight) { return weight; }

  // Host <-> backend. Host data are float32; images are NCHW on the host and NHWC on the backend.
  virtual void upload(const float* host, Tensor y) = 0;
  virtual void download(Tensor x, float* host) = 0;
  virtual void uploadImage(const float* nchw, Tensor nhwc) = 0;
  virtual void downloadImage(Tensor nhwc, float* nchw) = 0;
  /// x in −1..1 NHWC [B, H, W, 3] → round(clamp(x/2 + 0.5) · 255), ties to even, as diffusers and PIL.
  virtual void downloadPixels(Tensor x, uint8_t* host) = 0;

  // Operations of the models.
  virtual void linear(const LinearArgs&) = 0;
  virtual void conv2d(const ConvArgs&) = 0;
  virtual void groupNorm(const GroupNormArgs&) = 0;
  virtual void layerNorm(const LayerNormArgs&) = 0;
  virtual void attention(const AttentionArgs&) = 0;
  virtual void embed(const EmbedArgs&) = 0;
  virtual void activate(Tensor x, Activation activation, Tensor y) = 0;
  /// x [B, H, W, C] → y [B, 2H, 2W, C]: every pixel four times; or → y [B, ⌊H/2⌋, ⌊W/2⌋, C]: means of 2 × 2.
  /// The default throws Error(Unsupported): not every backend has it yet.
  virtual void resample(Tensor x, Tensor y);
  virtual void add(Tensor a, Tensor b, float scale, Tensor y) = 0;       // y = a + scale · b; y may be a
  virtual void gatherRows(Tensor x, const int32_t* rows, Tensor y) = 0;  // y[i] = x.row(rows[i])
  virtual void copyColumns(Tensor x, Tensor y, int64_t column) = 0;      // y[:, column..] = x

  // The step loop.
  /// Model input from latents: y NHWC [copies·B, H, W, C] = scale · x NCHW float32 [B, C, H, W], repeated.
  virtual void modelInput(Tensor x, double scale, int copies, Tensor y) = 0;
  /// Model output NHWC → float32 NCHW.
  virtual void modelOutput(Tensor x, Tensor nchw) = 0;
  virtual void planStep(const PlanStepArgs&) = 0;
  /// Host <-> the loop's float32 tensors. The defaults serve backends whose memory is the host's.
  virtual void uploadPlan(const float* host, Tensor y);
  virtual void downloadPlan(Tensor x, float* host);

  // Queues, for backends whose operations return before they have run. The defaults serve the others.
  /// Returns when everything that was asked for has been done.
  virtual void synchronize();
  /// The end of a step of the loop: returns when at most two steps are still to be done.
  virtual void endStep();
  /// Between beginRecording() and endRecording() the operations of this thread are noted and not run; they
  /// may not allocate, upload or download. False: this backend does not record. See Repeated in repeated.h.
  virtual bool beginRecording();
  virtual std::shared_ptr<Recording> endRecording();
  virtual void cancelRecording() noexcept;
  virtual void replay(const Recording&);
};

/// A wide range for as long as this lives, where asked for.
class WideRange {
 public:
  WideRange(Backend& backend, bool wide) : backend_(backend), before_(backend.setWideRange(wide)) {}
  ~WideRange() { backend_.setWideRange(before_); }
  WideRange(const WideRange&) = delete;
  WideRange& operator=(const WideRange&) = delete;

 private:
  Backend& backend_;
  const bool before_;
};

/// The readable reference operations on one thread: the specification and the tests' oracle.
std::unique_ptr<Backend> makeReferenceBackend();

/// The SIMD backend. `threads` 0: the physical cores. `isa` empty: NODE_DIFFUSION_CPU, else the best that the
/// machine has; a name that is unknown or that this machine lacks throws Error(InvalidArgument). `dtype`, of
/// the operands of matrix products: F32, or BF16, which throws Error(Unsupported) where the CPU has no dot
/// products of it. All else is float32.
std::unique_ptr<Backend> makeCpuBackend(int threads = 0, const std::string& isa = {},
                                        DType dtype = DType::F32);

/// Why CUDA cannot be used here ("no NVIDIA driver …"), or empty, and the devices that can be.
struct CudaInfo {
  struct Device {
    int index;
    std::string name;      // "NVIDIA H200"
    int capability;        // 90 for 9.0
    size_t memory;         // bytes
    std::string unusable;  // why it cannot be used; empty where it can
  };
  std::string reason;
  std::vector<Device> devices;
};
CudaInfo cudaInfo();

/// Throws Error(CudaUnavailable) with the reason. `dtype`, of activations and weights: F16 or BF16.
std::unique_ptr<Backend> makeCudaBackend(int device = 0, DType dtype = DType::F16);

struct IsaInfo {
  std::string name;  // "avx512", "avx2", "neon", "scalar"
  std::string description;
  bool compiled, supported;
  bool bf16;  // this machine has its dot products of bfloat16
};
/// In order of preference.
std::vector<IsaInfo> cpuIsas();
/// Why makeCpuBackend(threads, "", DType::BF16) would throw Error(Unsupported); empty where it would not.
std::string whyNoBf16();

}  // namespace nd
