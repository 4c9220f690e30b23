#include "engine/unconditional.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "engine/repeated.h"

namespace nd {

namespace {

/// [B, 3 or 1, H, W] of −1..1 → RGB8 [B, H, W, 3]: round(clamp(x/2 + 0.5) · 255), ties to even, as diffusers.
std::vector<uint8_t> pixelsOf(const std::vector<float>& x, const Shape& shape) {
  const auto plane = static_cast<size_t>(shape[2] * shape[3]), channels = static_cast<size_t>(shape[1]);
  if (channels != 1 && channels != 3)
    throw Error(ErrorCode::Unsupported,
                format("Expected a model of 1 or 3 channels for pictures but this one has %zu: ask for the "
                       "tensor (outputType 'latent')",
                       channels));
  std::vector<uint8_t> out(static_cast<size_t>(shape[0]) * plane * 3);
  for (size_t i = 0; i < out.size(); i++) {
    const size_t image = i / (plane * 3), pixel = i / 3 % plane, channel = channels == 1 ? 0 : i % 3;
    const float v = std::clamp(x[(image * channels + channel) * plane + pixel] / 2 + 0.5f, 0.0f, 1.0f);
    out[i] = static_cast<uint8_t>(std::nearbyint(v * 255));
  }
  return out;
}

std::vector<float> downloaded(Context& context, const Tensor& planTensor) {
  std::vector<float> host(static_cast<size_t>(planTensor.shape.count()));
  context.backend.downloadPlan(planTensor, host.data());
  return host;
}

}  // namespace

GenerateResult generateUnconditional(Context& context, const UNet2d& unet, const UnconditionalJob& job,
                                     const std::function<void(GenerateEvent&&)>& onStep) {
  const auto begun = std::chrono::steady_clock::now();
  Arena::Scope scope(context.arena);
  const int64_t channels = unet.config().inChannels;
  GenerateResult result;
  result.latentShape = {job.batch, channels, job.height, job.width};

  std::vector<float> timesteps;
  for (const PlanRow& row : job.plan.rows) timesteps.push_back(static_cast<float>(row.timestep));
  Tensor times, current;
  if (!timesteps.empty()) {
    times = unet.prepareTime(context, timesteps);
    current = context.arena.tensor({1, times.shape.last()});
  }
  std::vector<std::unique_ptr<NoiseSource>> sources;
  for (const uint64_t seed : job.seeds) sources.push_back(makeNoiseSource(seed, job.noise));
  BatchNoise noise(std::move(sources));

  DenoiseOptions options;
  options.batch = job.batch;
  options.channels = channels;
  options.height = job.height;
  options.width = job.width;
  options.initial = job.latents;
  options.noise = &noise;
  options.outputChannels = unet.config().outChannels;
  options.keepInput = job.stepLatents && onStep;
  Repeated evaluation;
  options.predict = [&](size_t row, const Tensor& x, double inputScale, const Tensor& out) {
    Arena::Scope step(context.arena);
    // What differs between rows is put where every evaluation finds it: see Repeated.
    const Tensor input = context.arena.tensor({job.batch, job.height, job.width, channels});
    context.backend.modelInput(x, inputScale, 1, input);
    context.backend.copyColumns(slice(context, times, static_cast<int64_t>(row), 1), current, 0);
    evaluation(context, [&] { context.backend.modelOutput(unet.forward(context, input, current), out); });
  };
  options.onStep = [&](const StepState& state) {
    const PlanRow& row = job.plan.rows[state.row];
    if (!onStep) return;
    GenerateEvent event{state.row, state.step, state.steps, state.timestep, {}, {}, {}, {}};
    if (job.stepLatents) {
      event.latents = downloaded(context, state.x);
      event.predictedNoise = predictedNoise(row, state.input, downloaded(context, state.m));
      event.predictedOriginal = downloaded(context, state.p);
    }
    if (row.step && job.previewEvery > 0 && (state.step % job.previewEvery == 0 || state.step == state.steps))
      event.preview = pixelsOf(downloaded(context, state.p), result.latentShape);
    onStep(std::move(event));
  };
  result.latents = denoise(context, job.plan, options);
  if (job.pictures) {
    result.height = job.height;
    result.width = job.width;
    result.pixels = pixelsOf(result.latents, result.latentShape);
  }
  result.timings.denoise = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  return result;
}

}  // namespace nd
