// The step loop on the CUDA backend: rows of a plan against the reference, recorded work, memory.
#include <cmath>
#include <functional>
#include <memory>

#include "engine/arena.h"
#include "engine/repeated.h"
#include "test/native/backends.h"
#include "test/native/check.h"
#ifdef ND_CUDA_SIM
#include "cuda/devices.h"
#include "cuda/sim/runtime.h"
#endif

namespace nd::test {
namespace {

std::unique_ptr<Backend> gpuOrSkip() {
  if (const CudaInfo info = cudaInfo(); !info.reason.empty()) throw ndtest::Skip(info.reason);
  return makeCudaBackend();
}

/// Latents of a row: every part of the basis, random; what the plan did to them.
struct PlanCase {
  PlanRow row;
  int branches = 1, outputChannels = 3;
  double guidanceRescale = 0;
  bool masked = false;
  Shape shape{2, 3, 5, 7};
  float outputScale = 1;
};

std::vector<float> runPlan(Backend& b, const PlanCase& c) {
  std::vector<void*> owned;
  std::vector<size_t> sizes;
  const auto tensor = [&](const Shape& shape, const std::vector<float>& values) {
    sizes.push_back(values.size() * 4);
    owned.push_back(b.allocate(sizes.back()));
    const Tensor t{owned.back(), shape, shape.last()};
    b.uploadPlan(values.data(), t);
    return t;
  };
  const auto random = [&](const Shape& shape, uint32_t seed, float scale = 1) {
    std::vector<float> values = randomFloats(shape.count(), seed);
    for (float& v : values) v *= scale;
    return tensor(shape, values);
  };
  const Shape outputShape{c.branches * c.shape[0], c.outputChannels, c.shape[2], c.shape[3]};
  PlanStepArgs args;
  args.row = &c.row;
  args.modelOutput = random(outputShape, 100, c.outputScale);
  args.branches = c.branches;
  args.guidanceRescale = c.guidanceRescale;
  for (int i = 0; i < kBasisCount; i++) args.state[i] = random(c.shape, static_cast<uint32_t>(i + 1));
  args.p = random(c.shape, 50);
  Tensor mask;
  if (c.masked) {
    std::vector<float> values(c.shape[0] * c.shape[2] * c.shape[3]);
    for (size_t i = 0; i < values.size(); i++) values[i] = i % 5 == 0 ? 0.25f : static_cast<float>(i % 2);
    mask = tensor({c.shape[0], 1, c.shape[2], c.shape[3]}, values);
    args.mask = &mask;
  }
  b.planStep(args);
  std::vector<float> all;
  const auto append = [&](const Tensor& t) {
    std::vector<float> values(t.shape.count());
    b.downloadPlan(t, values.data());
    all.insert(all.end(), values.begin(), values.end());
  };
  append(args.p);
  for (const Tensor& state : args.state) append(state);
  for (size_t i = 0; i < owned.size(); i++) b.deallocate(owned[i], sizes[i]);
  return all;
}

void comparePlan(Backend& gpu, const PlanCase& c, const std::string& what, double tolerance = 2e-7) {
  const std::vector<float> expected = runPlan(reference(), c), actual = runPlan(gpu, c);
  double largest = 1;
  for (const float v : expected)
    if (std::isfinite(v)) largest = std::max(largest, std::abs(static_cast<double>(v)));
  checkClose(actual, expected, tolerance * largest, what);
}

PlanRow fullRow() {
  PlanRow row;
  row.a = 0.9, row.b = -0.4, row.c = 1.5, row.d = -1.25;
  row.guidance = {7.5, 1.5, -0.5};
  row.writes = {
      {Basis::r1, {{Basis::r0, 1}}},
      {Basis::r0, {{Basis::h, 1}}},
      {Basis::x, {{Basis::x, 0.5}, {Basis::r0, 2}, {Basis::r1, -1}, {Basis::n, 0.25}, {Basis::m, 3}}},
      {Basis::r3, {}},
      {Basis::r2, {{Basis::x, 1}, {Basis::n0, -2}, {Basis::orig, 4}, {Basis::nPrev, 0.1}, {Basis::r7, 0}}}};
  return row;
}

}  // namespace

ND_TEST("cuda plan: guidance over branches, writes, learned range, blend") {
  const auto gpu = gpuOrSkip();
  for (const int branches : {1, 2, 3, 4}) {
    PlanCase c{fullRow(), branches};
    comparePlan(*gpu, c, "writes");
    c.row.learnedRange = {-4.0, -1.0};
    c.outputChannels = 6;
    comparePlan(*gpu, c, "learned range");
    c.row.blend = {0.8, 0.6};
    comparePlan(*gpu, c, "a blend without a mask");
    c.masked = true;
    comparePlan(*gpu, c, "blend");
  }
  PlanCase nothing{PlanRow()};
  comparePlan(*gpu, nothing, "no writes");
  PlanCase broken{fullRow(), 2};
  broken.row.guidance.clear();
  CHECK_ERROR(runPlan(*gpu, broken), ErrorCode::Internal, "guidance weight");
}

ND_TEST("cuda plan: guidance rescale, clip, dynamic threshold") {
  const auto gpu = gpuOrSkip();
  // More elements than threads, and fewer.
  for (const Shape& shape : {Shape{2, 3, 5, 7}, Shape{1, 4, 20, 23}, Shape{3, 1, 1, 2}}) {
    PlanCase c{fullRow(), 2, static_cast<int>(shape[1])};
    c.shape = shape;
    c.guidanceRescale = 0.7;
    comparePlan(*gpu, c, "rescale");
    c.row.clip = 0.75;
    comparePlan(*gpu, c, "clip");
    for (const double ratio : {0.0, 0.5, 0.9, 0.995, 1.0})
      for (const double most : {1.5, 100.0}) {
        c.row.threshold = {ratio, most};
        comparePlan(*gpu, c, format("threshold %g %g", ratio, most));
      }
    c.outputScale = 30;  // beyond maxValue
    comparePlan(*gpu, c, "threshold of large values");
  }
  // Equal values around the rank, zeros, and NaN in one image of two.
  for (const float value : {0.0f, 3.0f, NAN}) {
    PlanCase c{PlanRow(), 1, 1};
    c.row.b = 1;
    c.row.threshold = {0.9, 10.0};
    c.shape = {2, 1, 4, 5};
    const auto run = [&](Backend& b) {
      std::vector<float> values(40, 2.5f), zeros(40, 0.0f), p(40);
      values[7] = value, values[8] = -value, values[30] = 4;
      void* memory[3];
      for (void*& m : memory) m = b.allocate(160);
      const Tensor output{memory[0], c.shape, 5}, x{memory[1], c.shape, 5}, predicted{memory[2], c.shape, 5};
      b.uploadPlan(values.data(), output);
      b.uploadPlan(zeros.data(), x);
      PlanStepArgs args;
      args.row = &c.row, args.modelOutput = output, args.branches = 1, args.p = predicted;
      args.state[0] = x;
      b.planStep(args);
      b.downloadPlan(predicted, p.data());
      for (void* m : memory) b.deallocate(m, 160);
      return p;
    };
    checkClose(run(*gpu), run(reference()), 1e-7, format("threshold among equals and %g", value));
  }
}

ND_TEST("cuda plan: more writes than a launch's parameters would hold") {
  const auto gpu = gpuOrSkip();
  PlanCase c{PlanRow()};
  c.row.b = 1;
  for (int i = 0; i < 500; i++)
    c.row.writes.push_back(
        {static_cast<Basis>(int(Basis::r0) + i % 8),
         {{static_cast<Basis>(int(Basis::r0) + (i + 1) % 8), 0.5}, {Basis::m, 0.25}, {Basis::x, 0.125}}});
  comparePlan(*gpu, c, "500 writes");
}

ND_TEST("cuda plan: repeated work is recorded, and reads what was written before each time") {
  const auto gpu = gpuOrSkip();
  Arena arena(*gpu);
  Context context{*gpu, arena};
  const std::vector<float> ones(24, 1);
  const Tensor input = arena.tensor({3, 8}), out = arena.tensor({3, 8});
  Repeated repeated;
  int ran = 0;
  for (int i = 1; i <= 5; i++) {
    std::vector<float> values(24, static_cast<float>(i)), result(24);
    gpu->upload(values.data(), input);
    Arena::Scope scope(arena);
    repeated(context, [&] {
      ran++;
      Arena::Scope inner(arena);
      const Tensor twice = add(context, input, input);
      gpu->add(twice, input, 1, out);
    });
    gpu->endStep();
    gpu->download(out, result.data());
    CHECK(result == std::vector<float>(24, 3.0f * static_cast<float>(i)));
  }
  CHECK(ran == 2);  // as it is, then for the recording

  // Work of the same kind over other memory, and of another kind.
  for (int round = 0; round < 3; round++) {
    Repeated other;
    const Tensor y = arena.tensor({3, 8});
    std::vector<float> result(24);
    for (int i = 0; i < 3; i++)
      other(context, [&] {
        gpu->add(input, input, 1, y);
        if (round == 2) gpu->add(y, input, 1, y);
        gpu->add(y, input, 1, y);
      });
    gpu->download(y, result.data());
    CHECK(result == std::vector<float>(24, round == 2 ? 20.0f : 15.0f));
  }

  // An error while recording leaves the backend usable, and what may not be recorded is refused.
  Repeated failing;
  int calls = 0;
  const auto body = [&] {
    if (++calls == 2) throw Error(ErrorCode::Aborted, "aborted");
    gpu->add(input, input, 1, out);
  };
  failing(context, body);
  CHECK_ERROR((failing(context, body), 0), ErrorCode::Aborted, "aborted");
  failing(context, body);
  const int32_t rows[] = {0, 1, 2};
  Repeated uploading;
  const auto upload = [&] { gpu->gatherRows(input, rows, out); };
  uploading(context, upload);
  CHECK_ERROR((uploading(context, upload), 0), ErrorCode::Internal, "while operations are recorded");
  gpu->add(input, input, 1, out);
  gpu->synchronize();
}

#ifdef ND_CUDA_SIM
namespace {
size_t bytesInUse() {
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  return total - free;
}
/// The simulated GPU's memory, for the scope of a test.
struct MemoryLimit {
  explicit MemoryLimit(size_t bytes) { cuda::sim::setMemoryLimit(bytes); }
  ~MemoryLimit() { cuda::sim::setMemoryLimit(size_t{16} << 30); }
};
}  // namespace

ND_TEST("cuda memory: everything is given back") {
  const size_t before = bytesInUse();
  {
    const auto gpu = makeCudaBackend();
    Arena arena(*gpu);
    const Tensor x = arena.tensor({100, 1000});
    gpu->upload(randomFloats(100000, 1).data(), x);
    const WeightPtr weight =
        makeWeight(*gpu, WeightKind::Linear, HostWeight({64, 100}, randomFloats(6400, 1), DType::F16));
    CHECK(weight->bytes() == 64 * 104 * 2 && gpu->memory().weights == weight->bytes());
    CHECK(bytesInUse() > before);
  }
  CHECK(bytesInUse() == before);
  {
    WeightPtr weight;
    {
      const auto gpu = makeCudaBackend();
      weight = makeWeight(*gpu, WeightKind::Vector, HostWeight({64}, randomFloats(64, 1), DType::F16));
    }
    CHECK(bytesInUse() == before + weight->bytes());  // weights outlive their backend
  }
  CHECK(bytesInUse() == before);
}

ND_TEST("cuda memory: a shortage is an error with the sizes, and the next call works") {
  const size_t before = bytesInUse();
  const MemoryLimit limit(before + (size_t{200} << 20));
  {
    const auto gpu = makeCudaBackend();
    Arena arena(*gpu);
    Context context{*gpu, arena};
    const std::vector<float> values = randomFloats(1000, 1);
    const auto works = [&] {
      Arena::Scope scope(arena);
      const Tensor x = upload(context, values, {10, 100});
      std::vector<float> back(1000);
      gpu->download(x, back.data());
      CHECK(std::abs(back[500] - values[500]) < 1e-3f);
    };
    works();
    CHECK_ERROR(arena.tensor({1 << 10, 1 << 20}), ErrorCode::OutOfMemory, "MB");
    works();
    CHECK_ERROR(gpu->allocate(size_t{300} << 20), ErrorCode::OutOfMemory, "Expected 300 MB of GPU memory");
    CHECK_ERROR(arena.tensor({100, 1 << 20}), ErrorCode::OutOfMemory, "of GPU memory for activations");
    works();
    const std::vector<float> large(size_t{70} << 20);
    CHECK_ERROR(makeWeight(*gpu, WeightKind::Table, HostWeight({70, 1 << 20}, large, DType::F32)),
                ErrorCode::OutOfMemory, "weight 'weight'");
    works();
  }
  CHECK(bytesInUse() == before);
  const MemoryLimit none(before + 1);
  CHECK_ERROR(makeCudaBackend(), ErrorCode::OutOfMemory, "workspace");
}

ND_TEST("cuda memory: an arena grows in place") {
  const auto gpu = makeCudaBackend();
  Arena arena(*gpu);
  const Tensor first = arena.tensor({4, 8});
  const std::vector<float> values(32, 2.5f);
  gpu->upload(values.data(), first);
  const Arena::Mark mark = arena.mark();
  void* second = arena.allocate(100);
  const Tensor wide = arena.tensor({30, 1 << 20});  // over several growths, one tensor
  gpu->activate(wide, Activation::None, wide);
  arena.release(mark);
  CHECK(arena.allocate(100) == second);
  std::vector<float> back(32);
  gpu->download(first, back.data());
  CHECK(back == values);
}

ND_TEST("cuda devices: drivers") {
  CHECK(cuda::driverReason(0, 13000) == "no NVIDIA driver is installed");
  CHECK(cuda::driverReason(12080, 13000).find("knows CUDA 12.8, and CUDA 13.0 is needed") !=
        std::string::npos);
  CHECK(cuda::driverReason(13000, 13000).empty() && cuda::driverReason(13010, 13000).empty() &&
        cuda::driverReason(14000, 13000).empty());
}
#endif

}  // namespace nd::test
