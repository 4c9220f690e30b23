#include "cuda/cuda-backend.h"

#include <algorithm>

#include "cuda/devices.h"
#include "cuda/kernels/activate.h"
#include "cuda/kernels/attention.h"
#include "cuda/kernels/conv.h"
#include "cuda/kernels/embed.h"
#include "cuda/kernels/gemm.h"
#include "cuda/kernels/group-norm.h"
#include "cuda/kernels/layer-norm.h"
#include "cuda/kernels/plan-step.h"
#include "cuda/kernels/resample.h"
#include "cuda/kernels/rows.h"
#include "cuda/kernels/transfer.h"

namespace nd::cuda {

namespace {

/// Runtime calls act on the calling thread's device, which this alone changes.
cudaError_t setDevice(int device) noexcept {
  thread_local int current = -1;
  if (current == device) return cudaSuccess;
  const cudaError_t error = cudaSetDevice(device);
  current = error == cudaSuccess ? device : -1;
  return error;
}
void useDevice(int device) { check(setDevice(device), "cudaSetDevice"); }

size_t floatBytes(const Tensor& t) { return static_cast<size_t>(t.shape.count()) * sizeof(float); }

}  // namespace

/// An instantiated CUDA graph.
class CudaBackend::Graph final : public Recording {
 public:
  Graph(cudaGraphExec_t exec, size_t nodes) : exec(exec), nodes(nodes) {}
  ~Graph() override { cudaGraphExecDestroy(exec); }
  const cudaGraphExec_t exec;
  const size_t nodes;
};

CudaBackend::OnDevice::OnDevice(int device) : index(device) { useDevice(device); }

CudaBackend::CudaBackend(int device, DType type) : device_(device), ownType_(type), type_(type) {
  expect(type == DType::F16 || type == DType::BF16, "cuda: activations are F16 or BF16");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  deviceName_ = properties.name;
  capability_ = properties.major * 10 + properties.minor;
  deviceMemory_ = properties.totalGlobalMem;
  workspace_ = DeviceBlock(kWorkspaceBytes, "the kernels' workspace");
  launch_.stream = stream_;
  launch_.multiprocessors = properties.multiProcessorCount;
  launch_.capability = capability_;
  launch_.workspace = workspace_.data(), launch_.workspaceBytes = workspace_.bytes();
  ring_ = std::make_unique<StagingRing>(stream_);
  loader_ = std::make_unique<WeightLoaderCuda>(stream_);
}

CudaBackend::~CudaBackend() {
  setDevice(device_.index);
  cudaStreamSynchronize(stream_);
}

const Launch& CudaBackend::launch() {
  useDevice(device_.index);
  return launch_;
}

std::string CudaBackend::name() const {
#ifdef ND_CUDA_SIM
  return "cuda-sim";
#else
  return format("cuda:%d", device_.index);
#endif
}

std::string CudaBackend::description() const {
  return format("%s, compute capability %d.%d, %d multiprocessors, %zu MB, %s", deviceName_.c_str(),
                capability_ / 10, capability_ % 10, launch_.multiprocessors, deviceMemory_ >> 20,
                ownType_ == DType::F16 ? "float16" : "bfloat16");
}

// Memory.

void* CudaBackend::allocate(size_t bytes) {
  useDevice(device_.index);
  void* data = allocateDevice(bytes, "activations");
  activationBytes_ += bytes;
  return data;
}

void CudaBackend::deallocate(void* data, size_t bytes) {
  setDevice(device_.index);
  cudaFree(data);
  activationBytes_ -= bytes;
}

void* CudaBackend::reserve(size_t& bytes) {
  useDevice(device_.index);
  bytes = 0;
  std::unique_ptr<AddressRange> range = AddressRange::reserve(device_.index, deviceMemory_);
  if (!range) return nullptr;
  bytes = range->bytes();
  ranges_.push_back(std::move(range));
  return ranges_.back()->data();
}

void CudaBackend::unreserve(void* data, size_t) {
  setDevice(device_.index);
  std::erase_if(ranges_, [&](const auto& range) { return range->data() == data; });
}

void CudaBackend::commit(void* data, size_t bytes) {
  useDevice(device_.index);
  for (const auto& range : ranges_)
    if (range->data() == data) return range->commit(bytes);
  throw Error(ErrorCode::Internal, "cuda: memory for a range that was not reserved");
}

MemoryUse CudaBackend::memory() const { return {weightBytes_->load(), activationBytes_}; }

bool CudaBackend::setWideRange(bool wide) {
  const bool before = type_ == DType::BF16;
  type_ = wide ? DType::BF16 : ownType_;
  return before;
}

WeightPtr CudaBackend::makeWeight(WeightKind kind, std::span<const HostTensor> parts) {
  std::unique_ptr<CudaWeight> weight = loader_->load(launch(), kind, parts, type_);
  *weightBytes_ += weight->bytes();
  return {weight.release(), [counter = weightBytes_, device = device_.index](const CudaWeight* w) {
            *counter -= w->bytes();
            setDevice(device);
            delete w;
          }};
}

void* CudaBackend::scratch(size_t bytes, DeviceBlock& own) {
  if (bytes <= workspace_.bytes()) return workspace_.data();
  own = DeviceBlock(bytes, "a transfer");
  return own.data();
}

void CudaBackend::expectHostTransfer() const {
  expect(!recording_, "nothing is uploaded or downloaded while operations are recorded");
}

// Host transfers.

void CudaBackend::upload(const float* host, Tensor y) {
  expectHostTransfer();
  DeviceBlock own;
  auto* values = static_cast<float*>(scratch(floatBytes(y), own));
  ring_->upload(host, values, floatBytes(y));
  narrowRows(launch(), type_, values, y);
}

void CudaBackend::download(Tensor x, float* host) {
  expectHostTransfer();
  DeviceBlock own;
  auto* values = static_cast<float*>(scratch(floatBytes(x), own));
  widenRows(launch(), type_, x, values);
  ring_->download(values, host, floatBytes(x));
}

void CudaBackend::uploadImage(const float* nchw, Tensor nhwc) {
  expectHostTransfer();
  DeviceBlock own;
  auto* values = static_cast<float*>(scratch(floatBytes(nhwc), own));
  ring_->upload(nchw, values, floatBytes(nhwc));
  fromPlanes(launch(), type_, values, 1, nhwc.shape[0], 1, nhwc);
}

void CudaBackend::downloadImage(Tensor nhwc, float* nchw) {
  expectHostTransfer();
  DeviceBlock own;
  auto* values = static_cast<float*>(scratch(floatBytes(nhwc), own));
  toPlanes(launch(), type_, nhwc, values);
  ring_->download(values, nchw, floatBytes(nhwc));
}

void CudaBackend::downloadPixels(Tensor x, uint8_t* host) {
  expectHostTransfer();
  DeviceBlock own;
  const auto bytes = static_cast<size_t>(x.shape.count());
  auto* values = static_cast<uint8_t*>(scratch(bytes, own));
  toPixels(launch(), type_, x, values);
  ring_->download(values, host, bytes);
}

void CudaBackend::uploadPlan(const float* host, Tensor y) {
  expectHostTransfer();
  useDevice(device_.index);
  ring_->upload(host, y.data, floatBytes(y));
}

void CudaBackend::downloadPlan(Tensor x, float* host) {
  expectHostTransfer();
  useDevice(device_.index);
  ring_->download(x.data, host, floatBytes(x));
}

// Operations.

const CudaWeight& CudaBackend::matrixOf(const Weight* w) const {
  const CudaWeight& weight = weightOf(w);
  expect(weight.type == type_, "cuda: weights and activations of one range");
  return weight;
}

void CudaBackend::linear(const LinearArgs& a) {
  const CudaWeight& weight = matrixOf(a.weight);
  GemmArgs g;
  g.type = type_;
  g.m = a.y.shape.rows(), g.n = weight.n, g.k = weight.k;
  g.x = a.x.data, g.xStride = a.x.stride;
  g.w = weight.data(), g.wPitch = weight.pitch;
  g.bias = floatsOf(a.bias);
  g.geglu = weight.kind == WeightKind::Geglu;
  g.activation = a.activation;
  if (a.residual) g.residual = a.residual->data, g.residualStride = a.residual->stride;
  g.y = a.y.data, g.yStride = a.y.stride;
  gemm(launch(), g);
}

bool CudaBackend::hasFolded(const CudaWeight& weight) {
  if (weight.folded.bytes()) return true;
  if (recording_) return false;  // nothing is allocated then; the run before the recording has come by here
  try {
    fold(launch(), weight);
  } catch (const Error& error) {
    if (error.code != ErrorCode::OutOfMemory) throw;
    return false;  // the layer as it is needs no memory, only time
  }
  *weightBytes_ += weight.folded.bytes();
  return true;
}

void CudaBackend::conv2d(const ConvArgs& a) {
  const CudaWeight& weight = matrixOf(a.weight);
  if (isEnlarged(a) && hasFolded(weight))
    return convEnlarged(launch(), type_, a, weight.folded.data(), weight.foldedPitch, floatsOf(a.bias));
  conv(launch(), type_, a, weight.data(), weight.pitch, floatsOf(a.bias));
}

void CudaBackend::groupNorm(const GroupNormArgs& a) {
  cuda::groupNorm(launch(), type_, a, floatsOf(a.gamma), floatsOf(a.beta));
}

void CudaBackend::layerNorm(const LayerNormArgs& a) {
  cuda::layerNorm(launch(), type_, a, floatsOf(a.gamma), floatsOf(a.beta));
}

void CudaBackend::attention(const AttentionArgs& a) { cuda::attention(launch(), type_, a); }

void CudaBackend::embed(const EmbedArgs& a) {
  expectHostTransfer();
  const auto count = static_cast<size_t>(a.y.shape.rows());
  for (size_t i = 0; i < count; i++)
    expect(a.ids[i] >= 0 && a.ids[i] < a.table->n, "embed: ids within the table");
  const auto* ids = static_cast<const int32_t*>(ring_->stage(a.ids, count * sizeof(int32_t)));
  cuda::embed(launch(), type_, matrixOf(a.table).data(), a.positions ? matrixOf(a.positions).data() : nullptr,
              ids, a.length, a.y);
}

void CudaBackend::activate(Tensor x, Activation activation, Tensor y) {
  cuda::activate(launch(), type_, x, activation, y);
}

void CudaBackend::add(Tensor a, Tensor b, float scale, Tensor y) {
  cuda::add(launch(), type_, a, b, scale, y);
}

void CudaBackend::resample(Tensor x, Tensor y) { cuda::resample(launch(), type_, x, y); }

void CudaBackend::gatherRows(Tensor x, const int32_t* rows, Tensor y) {
  expectHostTransfer();
  const auto count = static_cast<size_t>(y.shape.rows());
  for (size_t i = 0; i < count; i++)
    expect(rows[i] >= 0 && rows[i] < x.shape.rows(), "gatherRows: rows within x");
  const auto* staged = static_cast<const int32_t*>(ring_->stage(rows, count * sizeof(int32_t)));
  cuda::gatherRows(launch(), type_, x, staged, y);
}

void CudaBackend::copyColumns(Tensor x, Tensor y, int64_t column) {
  cuda::copyColumns(launch(), type_, x, y, column);
}

// The step loop.

void CudaBackend::modelInput(Tensor x, double scale, int copies, Tensor y) {
  fromPlanes(launch(), type_, x.f32(), scale, x.shape[0], copies, y);
}

void CudaBackend::modelOutput(Tensor x, Tensor nchw) { toPlanes(launch(), type_, x, nchw.f32()); }

void CudaBackend::planStep(const PlanStepArgs& args) {
  expectHostTransfer();
  checkPlanStep(args);
  const std::vector<PlanItem> items = planItems(*args.row);
  const auto* staged =
      static_cast<const PlanItem*>(ring_->stage(items.data(), items.size() * sizeof(PlanItem)));
  cuda::planStep(launch(), args, staged, static_cast<int>(items.size()));
}

// The queue.

void CudaBackend::synchronize() {
  useDevice(device_.index);
  check(cudaStreamSynchronize(stream_), "the GPU failed");
}

void CudaBackend::endStep() {
  useDevice(device_.index);
  const int64_t step = step_++;
  steps_[step % (kStepsAhead + 1)].record(stream_);
  if (step >= kStepsAhead) steps_[(step - kStepsAhead) % (kStepsAhead + 1)].wait();
}

bool CudaBackend::beginRecording() {
  useDevice(device_.index);
  expect(!recording_, "one recording at a time");
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  recording_ = true;
  return true;
}

std::shared_ptr<Recording> CudaBackend::endRecording() {
  recording_ = false;
  cudaGraph_t captured = nullptr;
  check(cudaStreamEndCapture(stream_, &captured), "cudaStreamEndCapture");
  const std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, decltype(&cudaGraphDestroy)> graph(
      captured, cudaGraphDestroy);
  size_t nodes = 0;
  check(cudaGraphGetNodes(captured, nullptr, &nodes), "cudaGraphGetNodes");
  // The same work as before over other addresses: the old graph takes them over, which costs less than a new
  // one.
  for (auto it = graphs_.begin(); it != graphs_.end(); ++it) {
    if (it->use_count() > 1 || (*it)->nodes != nodes) continue;
    cudaGraphExecUpdateResultInfo info;
    if (cudaGraphExecUpdate((*it)->exec, captured, &info) == cudaSuccess) return *it;
    cudaGetLastError();
    graphs_.erase(it);
    break;
  }
  cudaGraphExec_t exec = nullptr;
  check(cudaGraphInstantiate(&exec, captured, 0), "cudaGraphInstantiate");
  auto made = std::make_shared<Graph>(exec, nodes);
  constexpr size_t kKept = 4;
  if (graphs_.size() == kKept) graphs_.erase(graphs_.begin());
  graphs_.push_back(made);
  return made;
}

void CudaBackend::cancelRecording() noexcept {
  if (!recording_) return;
  recording_ = false;
  cudaGraph_t captured = nullptr;
  if (cudaStreamEndCapture(stream_, &captured) == cudaSuccess && captured) cudaGraphDestroy(captured);
  cudaGetLastError();
}

void CudaBackend::replay(const Recording& recording) {
  useDevice(device_.index);
  check(cudaGraphLaunch(static_cast<const Graph&>(recording).exec, stream_), "cudaGraphLaunch");
}

}  // namespace nd::cuda

namespace nd {

std::unique_ptr<Backend> makeCudaBackend(int device, DType type) {
  const CudaInfo info = cudaInfo();
  if (info.devices.empty()) throw Error(ErrorCode::CudaUnavailable, info.reason);
  if (device < 0 || device >= static_cast<int>(info.devices.size()))
    throw Error(ErrorCode::CudaUnavailable,
                format("Expected a device from cuda:0 to cuda:%zu but received cuda:%d",
                       info.devices.size() - 1, device));
  const CudaInfo::Device& chosen = info.devices[static_cast<size_t>(device)];
  if (!chosen.unusable.empty()) throw Error(ErrorCode::CudaUnavailable, chosen.unusable);
  return std::make_unique<cuda::CudaBackend>(device, type);
}

}  // namespace nd
