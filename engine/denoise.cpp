#include "engine/denoise.h"

#include <algorithm>
#include <utility>

namespace nd {

void BatchNoise::draw(float* out, int64_t batch, int64_t each) {
  if (sources_.empty()) throw Error(ErrorCode::Internal, "the plan draws noise but no generator was given");
  if (sources_.size() == 1) {
    sources_[0]->randn(out, batch * each);
    return;
  }
  expect(static_cast<int64_t>(sources_.size()) >= batch, "one generator, or one per image");
  for (int64_t b = 0; b < batch; b++) sources_[static_cast<size_t>(b)]->randn(out + b * each, each);
}

namespace {

/// Latents are float32 on every backend, whatever its activation type.
Tensor planTensor(Context& context, const Shape& shape) {
  return {context.arena.allocate(static_cast<size_t>(shape.count()) * sizeof(float)), shape, shape.last()};
}

/// Which parts of the basis the plan reads or writes: only those get memory.
std::vector<bool> usedBasis(const StepPlan& plan) {
  std::vector<bool> used(kBasisCount, false);
  for (const PlanRow& row : plan.rows) {
    for (const PlanWrite& write : row.writes) {
      used[static_cast<size_t>(write.to)] = true;
      for (const PlanTerm& term : write.terms) used[static_cast<size_t>(term.basis)] = true;
    }
    if (row.blend) used[size_t(Basis::orig)] = used[size_t(Basis::n0)] = true;
  }
  used[size_t(Basis::x)] = used[size_t(Basis::m)] = true;
  return used;
}

}  // namespace

std::vector<float> denoise(Context& context, const StepPlan& plan, const DenoiseOptions& o) {
  const Shape shape = {o.batch, o.channels, o.height, o.width};
  const auto count = static_cast<size_t>(shape.count());
  const int64_t each = shape.count() / o.batch;
  Backend& backend = context.backend;
  Arena::Scope scope(context.arena);

  const std::vector<bool> used = usedBasis(plan);
  Tensor state[kBasisCount];
  for (size_t b = 0; b < kBasisCount; b++)
    if (used[b] || b == size_t(Basis::n0)) state[b] = planTensor(context, shape);
  const Tensor predicted = planTensor(context, shape);
  const int64_t outputChannels = o.outputChannels ? o.outputChannels : o.channels;
  const Tensor output = planTensor(context, {o.branches * o.batch, outputChannels, o.height, o.width});

  // Latent state: n0, then x; registers start at zero.
  std::vector<float> host(count);
  const auto put = [&](Basis basis, std::span<const float> values) {
    expect(values.size() == count, "latents [B, C, H, W]");
    if (state[size_t(basis)]) backend.uploadPlan(values.data(), state[size_t(basis)]);
  };
  if (o.initial.empty()) {
    o.noise->draw(host.data(), o.batch, each);
  } else {
    if (o.initial.size() != count)
      throw Error(ErrorCode::InvalidArgument,
                  format("Expected latents of shape %s (%zu values) but received %zu values",
                         shape.text().c_str(), count, o.initial.size()));
    std::copy(o.initial.begin(), o.initial.end(), host.begin());
  }
  put(Basis::n0, host);
  if (o.start.empty()) {
    for (float& v : host) v = static_cast<float>(v * plan.initNoiseSigma);
    put(Basis::x, host);
  } else {
    put(Basis::x, o.start);
  }
  if (!o.original.empty())
    put(Basis::orig, o.original);
  else if (used[size_t(Basis::orig)])
    throw Error(ErrorCode::Internal, "the plan uses the original but none was given");
  std::fill(host.begin(), host.end(), 0.0f);
  for (int r = 0; r < kRegisterCount; r++) put(static_cast<Basis>(int(Basis::r0) + r), host);
  Tensor mask;
  if (!o.mask.empty()) {
    mask = planTensor(context, {o.batch, 1, o.height, o.width});
    expect(static_cast<int64_t>(o.mask.size()) == mask.shape.count(), "mask [B, 1, H, W]");
    backend.uploadPlan(o.mask.data(), mask);
  }

  // Two noise buffers take turns: n is this row's, nPrev the last one before it.
  const bool needNoise = used[size_t(Basis::n)] || used[size_t(Basis::nPrev)];
  Tensor fresh, last;
  if (needNoise) {
    fresh = planTensor(context, shape);
    last = planTensor(context, shape);
    put(Basis::n, host);
    backend.uploadPlan(host.data(), fresh);
    backend.uploadPlan(host.data(), last);
  }

  const int steps = static_cast<int>(
      std::count_if(plan.rows.begin(), plan.rows.end(), [](const PlanRow& r) { return r.step; }));
  int done = 0;
  std::vector<float> input(o.keepInput ? count : 0);
  for (size_t i = 0; i < plan.rows.size(); i++) {
    const PlanRow& row = plan.rows[i];
    context.checkAbort();
    if (o.keepInput) backend.downloadPlan(state[size_t(Basis::x)], input.data());
    o.predict(i, state[size_t(Basis::x)], row.inputScale, output);

    for (int d = 0; d < row.draws; d++) o.noise->draw(host.data(), o.batch, each);
    state[size_t(Basis::nPrev)] = last;
    if (needNoise && row.draws > 0) {
      backend.uploadPlan(host.data(), fresh);
      state[size_t(Basis::n)] = fresh;
      std::swap(fresh, last);
    }

    PlanStepArgs args{&row, output, o.branches, o.guidanceRescale, {}, mask ? &mask : nullptr, predicted};
    std::copy(std::begin(state), std::end(state), args.state);
    backend.planStep(args);
    backend.endStep();
    if (row.step) done++;
    if (o.onStep)
      o.onStep(
          {i, done, steps, row.timestep, state[size_t(Basis::x)], state[size_t(Basis::m)], predicted, input});
  }

  std::vector<float> result(count);
  backend.downloadPlan(state[size_t(Basis::x)], result.data());
  return result;
}

}  // namespace nd
