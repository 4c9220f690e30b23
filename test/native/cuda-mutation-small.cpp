// Every barrier of group norm and of the step plan left out once, as test/native/cuda-mutation.cpp does for
// the matrix kernels.
#include "cuda/kernels/group-norm.h"
#include "test/native/cuda-mutation.h"

namespace nd::test {
namespace {

std::vector<float> groupNormOf(Backend& gpu, int64_t c, int groups) {
  const auto vector = [&](uint32_t seed) {
    return makeWeight(gpu, WeightKind::Vector, HostWeight({c}, randomFloats(c, seed), DType::F32));
  };
  const auto gamma = vector(1), beta = vector(2);
  const OnBackend x(gpu, {1, 9, 13, c}, randomFloats(117 * c, 3)), y(gpu, {1, 9, 13, c});
  gpu.groupNorm({x, nullptr, gamma.get(), beta.get(), groups, 1e-5f, Activation::Silu, y});
  return y.download();
}

}  // namespace

ND_TEST("cuda mutation: group norm") {
  using cuda::GroupNormScheme;
  static const GroupNormScheme schemes[] = {GroupNormScheme::Resident, GroupNormScheme::Ranges};
  const auto gpu = makeCudaBackend();
  for (const GroupNormScheme& scheme : schemes) {
    cuda::forcedGroupNorm() = &scheme;
    struct Restore {
      ~Restore() { cuda::forcedGroupNorm() = nullptr; }
    } restore;
    expectDeletionsNoticed(format("group norm scheme %d", static_cast<int>(scheme)),
                           [&] { return groupNormOf(*gpu, 24, 4); });
  }
}

ND_TEST("cuda mutation: plan step") {
  const auto gpu = makeCudaBackend();
  expectDeletionsNoticed("plan step", [&] {
    PlanRow row;
    row.a = 0.5, row.b = 3, row.guidance = {4};
    row.threshold = {0.9, 100.0};
    const Shape shape{1, 2, 20, 31};
    const size_t count = static_cast<size_t>(shape.count());
    void *x = gpu->allocate(count * 4), *m = gpu->allocate(count * 8), *p = gpu->allocate(count * 4);
    PlanStepArgs args;
    args.row = &row, args.branches = 2, args.guidanceRescale = 0.7;
    args.state[0] = {x, shape, 31};
    args.modelOutput = {m, {2, 2, 20, 31}, 31};
    args.p = {p, shape, 31};
    gpu->uploadPlan(randomFloats(static_cast<int64_t>(count), 1).data(), args.state[0]);
    gpu->uploadPlan(randomFloats(static_cast<int64_t>(2 * count), 2).data(), args.modelOutput);
    std::vector<float> result(count);
    const auto free = [&] {
      gpu->deallocate(x, count * 4);
      gpu->deallocate(m, count * 8);
      gpu->deallocate(p, count * 4);
    };
    try {
      gpu->planStep(args);
    } catch (const Error&) {
      free();
      throw;
    }
    gpu->downloadPlan(args.p, result.data());
    free();
    return result;
  });
}

}  // namespace nd::test
