#include "engine/generate.h"

#include <algorithm>
#include <chrono>

#include "engine/attention-maps.h"
#include "engine/repeated.h"

namespace nd {

namespace {

class Stopwatch {
 public:
  /// Seconds since the last call, or since the beginning.
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    return seconds;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

std::vector<float> downloaded(Context& context, const Tensor& planTensor) {
  std::vector<float> host(static_cast<size_t>(planTensor.shape.count()));
  context.backend.downloadPlan(planTensor, host.data());
  return host;
}

/// Row of `table` [rows, n] for every batch entry: branch-major, `perPrompt` images per prompt.
template <class T>
std::vector<T> perImage(const std::vector<T>& table, int64_t rows, int64_t perPrompt) {
  const auto n = static_cast<ptrdiff_t>(static_cast<int64_t>(table.size()) / rows);
  std::vector<T> out;
  out.reserve(table.size() * static_cast<size_t>(perPrompt));
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < perPrompt; k++)
      out.insert(out.end(), table.begin() + static_cast<ptrdiff_t>(r) * n,
                 table.begin() + static_cast<ptrdiff_t>(r + 1) * n);
  return out;
}

/// [rows, L, C] → [rows · perPrompt, L, C].
Tensor repeatText(Context& context, const Tensor& text, int64_t perPrompt) {
  if (perPrompt == 1) return text;
  std::vector<int32_t> rows;
  const int64_t length = text.shape[1];
  for (int64_t r = 0; r < text.shape[0]; r++)
    for (int64_t k = 0; k < perPrompt; k++)
      for (int64_t i = 0; i < length; i++) rows.push_back(static_cast<int32_t>(r * length + i));
  return reshape(gatherRows(context, text, rows), {text.shape[0] * perPrompt, length, text.shape[2]});
}

/// Whether `values` are `copies` times the same.
bool allAlike(const std::vector<float>& values, int64_t copies) {
  const auto each = static_cast<ptrdiff_t>(static_cast<int64_t>(values.size()) / copies);
  return std::equal(values.begin() + each, values.end(), values.begin());
}

/// What the UNet needs besides x, made once per job. Lives in the arena.
struct Steering {
  UNet::Text text;
  UNet::Time time;     // of all rows of the plan
  UNet::Time current;  // of the row at hand
  std::optional<Controls> controls;
};

Steering prepare(Context& context, const Models& models, const GenerateJob& job,
                 const Conditioning& condition) {
  const UNet& unet = *models.unet;
  const int64_t rows = job.branches * job.prompts, batch = rows * job.imagesPerPrompt;
  AddedConditions added;
  int64_t perRow = 1;  // time embeddings are shared by the batch unless something else differs in it
  if (unet.config().addedTimeWidth) {
    perRow = batch;
    added.textEmbeds = perImage(condition.pooled, rows, job.imagesPerPrompt);
    added.timeIds = job.timeIds;
  }
  if (!job.timeCond.empty())
    for (int64_t b = 0; b < perRow; b++)
      added.timeCond.insert(added.timeCond.end(), job.timeCond.begin(), job.timeCond.end());
  const Tensor text = repeatText(context, condition.text, job.imagesPerPrompt);
  if (unet.poolsText()) {
    perRow = batch;
    added.pooledText = unet.poolText(context, text);
  }
  if (job.upscale) added.noiseLevel.assign(static_cast<size_t>(perRow), job.upscale->noiseLevel);
  std::vector<float> timesteps;
  for (const PlanRow& row : job.plan.rows)
    for (int64_t b = 0; b < perRow; b++) timesteps.push_back(static_cast<float>(row.timestep));
  Steering steering;
  const int64_t factor = models.vae ? models.vae->factor() : 1, height = job.latentHeight * factor,
                width = job.latentWidth * factor;
  std::optional<Rectangle> region;
  if (job.picture && !job.picture->masks.empty())
    region =
        repaintRegion(job.picture->repaint, job.picture->pictures[0], job.picture->masks[0], width, height);
  if (!job.controls.empty())
    steering.controls.emplace(context, models.controls, job.controls,
                              ControlTarget{.batch = job.prompts * job.imagesPerPrompt,
                                            .branches = job.branches,
                                            .prompted = job.prompted(),
                                            .height = height,
                                            .width = width,
                                            .region = region,
                                            .guess = job.guess,
                                            .timesteps = timesteps,
                                            .perRow = perRow,
                                            .added = added,
                                            .text = text});
  steering.text = unet.prepareText(context, text);
  const int64_t perBranch = job.prompts * job.imagesPerPrompt;
  addImagePrompts(context, models.ipAdapters, job.imagePrompts, {job.branches, job.prompted(), perBranch},
                  steering.text);
  if (!job.perturbed.empty())
    UNet::perturb(steering.text, job.perturbed, {(job.branches - 2) * perBranch, perBranch});
  steering.time = unet.prepareTime(context, timesteps, perRow, added);
  steering.current = unet.oneTime(context, steering.time);
  return steering;
}

}  // namespace

std::vector<float> predictedNoise(const PlanRow& row, std::span<const float> x, std::vector<float> m) {
  if (row.noise)
    for (size_t i = 0; i < m.size(); i++)
      m[i] = static_cast<float>(row.noise->first * x[i] + row.noise->second * m[i]);
  return m;
}

std::vector<uint8_t> decodePixels(Context& context, const Models& models, const std::vector<float>& latents,
                                  const Shape& shape) {
  return decodePixels(context, models.vae.get(), models.scaling, latents, shape);
}

std::vector<uint8_t> decodePixels(Context& context, const Autoencoder* vae, const LatentScaling& scaling,
                                  const std::vector<float>& latents, const Shape& shape, bool* inTiles) {
  const int64_t channels = shape[1], h = shape[2], w = shape[3], f = vae ? vae->factor() : 1;
  const auto each = static_cast<size_t>(channels * h * w), pixels = static_cast<size_t>(h * f * w * f * 3);
  std::vector<uint8_t> out(static_cast<size_t>(shape[0]) * pixels);
  std::vector<float> z(each);
  const WideRange range(context.backend, vae && vae->wideRange);
  std::optional<TiledAutoencoder> tiled;
  for (int64_t b = 0; b < shape[0]; b++) {
    for (size_t i = 0; i < each; i++) {
      const float value = latents[static_cast<size_t>(b) * each + i];
      z[i] = vae ? static_cast<float>(scaling.z(value, i / static_cast<size_t>(h * w))) : value;
    }
    const auto decode = [&](const Autoencoder* by) {
      Arena::Scope scope(context.arena);
      const Tensor painted = uploadImage(context, z.data(), 1, channels, h, w);
      const Tensor picture = by ? by->decode(context, painted) : painted;
      context.backend.downloadPixels(picture, out.data() + static_cast<size_t>(b) * pixels);
    };
    if (!tiled) {
      try {
        decode(vae);
        continue;
      } catch (const Error& error) {
        const VaeTiling tiling;
        const bool divisible = vae && !dynamic_cast<const TiledAutoencoder*>(vae);
        if (error.code != ErrorCode::OutOfMemory || !divisible || std::max(h, w) * f <= tiling.tile) throw;
        tiled.emplace(*vae, tiling);
      }
    }
    decode(&*tiled);
  }
  if (inTiles) *inTiles = tiled.has_value();
  return out;
}

GenerateResult generate(Context& context, const Models& models, const GenerateJob& job,
                        const std::function<void(GenerateEvent&&)>& onStep) {
  const UNet& unet = *models.unet;
  Arena::Scope scope(context.arena);
  context.tileX = job.tileX, context.tileY = job.tileY;
  GenerateResult result;
  Stopwatch watch;
  std::optional<TiledAutoencoder> tiled, tiledPreview;
  expect(models.vae || !(job.tiling || job.picture), "an autoencoder for the task's pictures");
  if (job.tiling) tiled.emplace(*models.vae, *job.tiling);
  const Autoencoder* vae = tiled ? static_cast<const Autoencoder*>(&*tiled) : models.vae.get();
  const bool smallPreview = models.previewVae && !job.fullPreview;
  if (job.tiling && smallPreview) tiledPreview.emplace(*models.previewVae, *job.tiling);
  const Autoencoder* preview = !smallPreview  ? vae
                               : tiledPreview ? static_cast<const Autoencoder*>(&*tiledPreview)
                                              : models.previewVae.get();

  // 1. Text.
  std::vector<const TextEncoder*> encoders;
  for (const auto& e : models.textEncoders) encoders.push_back(e.get());
  const Conditioning condition = encodePrompts(context, encoders, job.prompt);
  Steering steering{};
  if (!job.plan.rows.empty()) steering = prepare(context, models, job, condition);
  result.timings.text = watch.lap();

  // 2. The picture to begin with.
  const int64_t batch = job.prompts * job.imagesPerPrompt;
  const int64_t channels = vae ? vae->latentChannels() : unet.config().inChannels / (job.upscale ? 2 : 1);
  result.latentShape = {batch, channels, job.latentHeight, job.latentWidth};
  std::vector<std::unique_ptr<NoiseSource>> sources;
  for (const uint64_t seed : job.seeds) sources.push_back(makeNoiseSource(seed, job.noise));
  BatchNoise noise(std::move(sources));

  const int64_t extraChannels = unet.config().inChannels - channels;
  PreparedPicture picture;
  Tensor extra;  // [branches·B, h, w, E]
  if (job.picture) {
    const PictureTarget target{batch,         job.latentHeight, job.latentWidth, job.branches,
                               extraChannels, job.latents,      &job.variation};
    picture = preparePicture(context, *vae, models.scaling, *job.picture, target, noise);
    result.timings.encode = watch.lap();
  }
  if (job.upscale) {
    const PictureTarget target{batch,        job.latentHeight, job.latentWidth,
                               job.branches, extraChannels,    job.latents};
    picture = prepareUpscale(*job.upscale, target, channels, job.imagesPerPrompt, noise);
  }
  expect(extraChannels == 0 || !picture.extra.empty(), "a picture for the UNet's extra channels");
  if (extraChannels > 0)
    extra = uploadImage(context, picture.extra.data(), job.branches * batch, extraChannels, job.latentHeight,
                        job.latentWidth);

  const int64_t alike = allAlike(picture.extra, job.branches) ? job.branches : 1;

  // 3. The step loop.
  DenoiseOptions options;
  options.batch = batch;
  options.channels = channels;
  options.height = job.latentHeight;
  options.width = job.latentWidth;
  options.branches = job.branches;
  options.guidanceRescale = job.guidanceRescale;
  std::vector<float> varied;
  if (!job.picture && !job.upscale && job.latents.empty() && !job.variation.none()) {
    varied.resize(static_cast<size_t>(result.latentShape.count()));
    drawVaried(noise, job.variation, result.latentShape, varied.data());
  }
  options.initial = job.picture || job.upscale ? picture.noise : varied.empty() ? job.latents : varied;
  options.start = picture.start;
  options.original = picture.original;
  options.mask = picture.mask;
  options.noise = &noise;
  options.outputChannels = unet.config().outChannels;
  options.keepInput = job.stepLatents && onStep;
  std::optional<AttentionRecorder> recorder;
  if (job.attentionMaps) recorder.emplace((job.branches - 1) * batch, batch);
  std::map<std::vector<double>, Repeated> evaluations;  // by the strengths of the controls, 0 while they rest
  options.predict = [&](size_t row, const Tensor& x, double inputScale, const Tensor& out) {
    Arena::Scope step(context.arena);
    // What differs between rows is put where every evaluation finds it: see Repeated.
    const Tensor latents =
        context.arena.tensor({job.branches * batch, job.latentHeight, job.latentWidth, channels});
    context.backend.modelInput(x, inputScale, job.branches, latents);
    unet.selectTime(context, steering.time, static_cast<int64_t>(row), steering.current);
    if (steering.controls) steering.controls->select(context, static_cast<int64_t>(row));
    const std::vector<double>& scales = job.plan.rows[row].controlScales;
    const auto evaluate = [&](Context& on) {
      const Tensor input = extra ? concatColumns(on, std::vector<Tensor>{latents, extra}) : latents;
      UNet::Joined joined{};
      if (steering.controls) joined = steering.controls->joined(context, latents, scales);
      joined.freeU = job.freeU;
      joined.alike = alike;
      const Tensor y = unet.forward(on, input, steering.current, 0, steering.text, nullptr, joined);
      on.backend.modelOutput(y, out);
    };
    // FreeU and the recorder go by way of the host: nothing to be repeated.
    if (!recorder && !job.freeU) return evaluations[scales](context, [&] { evaluate(context); });
    Context watched = context;
    if (recorder) watched.attentionMaps = &*recorder;
    evaluate(watched);
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
      event.preview = decodePixels(context, preview, smallPreview ? models.previewScaling : models.scaling,
                                   downloaded(context, state.p), result.latentShape);
    onStep(std::move(event));
  };
  result.latents = denoise(context, job.plan, options);
  result.timings.denoise = watch.lap();
  if (recorder && recorder->tokens()) {
    result.attention = recorder->averaged(job.latentHeight, job.latentWidth);
    result.attentionShape = {batch, recorder->tokens(), job.latentHeight, job.latentWidth};
  }

  // 4. The autoencoder.
  if (job.decode) {
    const int64_t factor = vae ? vae->factor() : 1;
    result.height = job.latentHeight * factor;
    result.width = job.latentWidth * factor;
    result.pixels = decodePixels(context, vae, models.scaling, result.latents, result.latentShape,
                                 &result.decodedInTiles);
    if (!picture.overlays.empty())
      result.pixels = overlaidAll(picture.overlays, result.pixels, result.width, result.height);
    result.timings.decode = watch.lap();
  }
  return result;
}

}  // namespace nd
