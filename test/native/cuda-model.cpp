// Whole models on the CUDA backend against the CPU's: every operation as the models combine them, the step
// loop with its recorded evaluation, the autoencoder.
#include "bench/gpu/random-models.h"
#include "engine/denoise.h"
#include "engine/models/t5.h"
#include "engine/repeated.h"
#include "test/native/backends.h"
#include "test/native/check.h"

namespace nd::test {
namespace {

using bench::RandomModel;
using bench::relativeError;

std::unique_ptr<Backend> gpuOrSkip(DType type = DType::F16) {
  if (const CudaInfo info = cudaInfo(); !info.reason.empty()) throw ndtest::Skip(info.reason);
  return makeCudaBackend(0, type);
}

/// Three steps of Euler's method with guidance and fresh noise in the last one; `alike`: see EncodeOptions.
std::vector<float> denoised(Backend& backend, int64_t alike) {
  RandomModel model(backend, bench::modelShape("tiny"));
  StepPlan plan;
  for (int i = 0; i < 3; i++) {
    PlanRow row;
    row.inputScale = 1 / (1.0 + 0.1 * i);
    row.guidance = {2.0};
    row.a = 1, row.b = -0.5;
    row.writes = {{Basis::x, {{Basis::x, 1}, {Basis::m, -0.2}, {Basis::n, i == 2 ? 0.1 : 0.0}}}};
    row.draws = i == 2 ? 1 : 0;
    plan.rows.push_back(row);
  }
  std::vector<std::unique_ptr<NoiseSource>> sources;
  sources.push_back(makeNoiseSource(7, NoiseKind::Cpu));
  BatchNoise noise(std::move(sources));
  DenoiseOptions o;
  o.height = o.width = model.side();
  o.branches = 2;
  o.noise = &noise;
  Context& context = model.context();
  Repeated evaluation;
  o.predict = [&](size_t row, const Tensor& x, double inputScale, const Tensor& out) {
    Arena::Scope step(context.arena);
    const Tensor latents = context.arena.tensor({2, model.side(), model.side(), 4});
    context.backend.modelInput(x, inputScale, 2, latents);
    model.unet().selectTime(context, model.time(), static_cast<int64_t>(row), model.current());
    evaluation(context, [&] { model.predict(latents, out, alike); });
  };
  return denoise(context, plan, o);
}

std::vector<float> decoded(Backend& backend) {
  const bench::ModelShape shape = bench::modelShape("tiny");
  const Vae vae(shape.vae, WeightLoader(backend, bench::RandomTensors("vae")));
  Arena arena(backend);
  Context context{backend, arena};
  const std::vector<float> z = bench::randomValues(4 * 6 * 5, 4);
  const Tensor picture = vae.decode(context, uploadImage(context, z.data(), 1, 4, 6, 5));
  std::vector<float> out(static_cast<size_t>(picture.shape.count()));
  backend.downloadImage(picture, out.data());
  const Tensor moments = vae.encode(context, picture);
  std::vector<float> back(static_cast<size_t>(moments.shape.count()));
  backend.downloadImage(moments, back.data());
  out.insert(out.end(), back.begin(), back.end());
  return out;
}

void expectClose(const std::vector<float>& actual, const std::vector<float>& expected, double tolerance,
                 const char* what) {
  const double error = relativeError(actual, expected);
  ndtest::note(format("%s: relative error %.2g", what, error));
  if (!(error <= tolerance))
    fail(format("%s: relative error %.3g, expected at most %.3g", what, error, tolerance));
}

}  // namespace

// Every layer rounds to 11 (8) bits; about a hundred of them follow each other.
ND_TEST("cuda model: one evaluation of a UNet") {
  const auto cpu = makeCpuBackend(2);
  const std::vector<float> expected = RandomModel(*cpu, bench::modelShape("tiny")).evaluate(1);
  const auto gpu = gpuOrSkip(), wide = gpuOrSkip(DType::BF16);
  expectClose(RandomModel(*gpu, bench::modelShape("tiny")).evaluate(1), expected, 5e-3, "float16");
  expectClose(RandomModel(*wide, bench::modelShape("tiny")).evaluate(1), expected, 4e-2, "bfloat16");
}

ND_TEST("cuda model: the step loop replays its evaluation") {
  const auto cpu = makeCpuBackend(2), gpu = gpuOrSkip();
  const std::vector<float> expected = denoised(*cpu, 1);
  expectClose(denoised(*gpu, 1), expected, 5e-3, "latents");
  expectClose(denoised(*gpu, 2), expected, 5e-3,
              "latents of a second run, its branches sharing, over the old graph");
}

ND_TEST("cuda model: T5 with a mask, whose layers leave the range of float16") {
  const auto encoded = [](Backend& backend) {
    T5Config c;
    c.vocabSize = 30, c.hiddenSize = 32, c.intermediateSize = 48, c.layers = 2, c.heads = 2, c.headDim = 16;
    c.gated = true;
    const T5Encoder t5(c, WeightLoader(backend, bench::RandomTensors("t5")));
    Arena arena(backend);
    Context context{backend, arena};
    const std::vector<int32_t> ids = {3, 7, 29, 1, 0, 0, 5, 6, 8, 9, 2, 1};
    const std::vector<uint8_t> mask = {1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1};
    const TextEncoder::Output out = t5.encode(context, ids, 6, mask);
    std::vector<float> values(static_cast<size_t>(out.last.shape.count())), hidden(values.size());
    backend.download(out.last, values.data());
    backend.download(out.hiddenStates[1], hidden.data());
    values.insert(values.end(), hidden.begin(), hidden.end());
    return values;
  };
  const auto cpu = makeCpuBackend(2), gpu = gpuOrSkip();
  expectClose(encoded(*gpu), encoded(*cpu), 4e-2, "bfloat16 inside");
}

ND_TEST("cuda model: the autoencoder, both ways") {
  const auto cpu = makeCpuBackend(2), gpu = gpuOrSkip();
  expectClose(decoded(*gpu), decoded(*cpu), 1e-2, "picture and moments");
}

}  // namespace nd::test
