// The jobs around the UNet: loading autoencoders and UNet2DModel, and diffusion without a condition.
#include "binding/convert.h"
#include "binding/jobs.h"

namespace nd::binding {

namespace {

std::unique_ptr<Autoencoder> makeAutoencoder(const std::optional<TinyVaeConfig>& tiny, const VaeConfig& full,
                                             const WeightLoader& loader) {
  if (tiny) return std::make_unique<TinyVae>(*tiny, loader);
  return std::make_unique<Vae>(full, loader);
}

/// unconditional(job, onStep?)
class Unconditional : public Job {
 public:
  explicit Unconditional(const Napi::CallbackInfo& info)
      : Job(info.Env()), job_(unconditionalJob(info[0].As<Napi::Object>())) {
    if (info.Length() > 1 && info[1].IsFunction()) onStep = Napi::Persistent(info[1].As<Napi::Function>());
    listening_ = !onStep.IsEmpty();
  }
  void run(Context& context, EngineState& state) override {
    if (!state.models.unconditional)
      throw Error(ErrorCode::InvalidArgument, "Expected a pipeline with a UNet2DModel but this one has none");
    const UNet2d& unet = *state.models.unconditional;
    const Shape shape = {job_.batch, unet.config().inChannels, job_.height, job_.width};
    std::function<void(GenerateEvent &&)> listener;
    if (listening_)
      listener = [this, shape](GenerateEvent&& event) {
        auto shared = std::make_shared<GenerateEvent>(std::move(event));
        post([this, shared, shape](Napi::Env env) { emitStep(env, *this, *shared, shape); });
      };
    out_ = generateUnconditional(context, unet, job_, listener);
  }
  Napi::Value result(Napi::Env env) override { return toJs(env, out_); }

 private:
  UnconditionalJob job_;
  bool listening_;
  GenerateResult out_;
};

/// predictUnconditional(sample [B, C, H, W], timesteps [1 or B]) → tensor
class PredictUnconditional : public Job {
 public:
  explicit PredictUnconditional(const Napi::CallbackInfo& info) : Job(info.Env()) {
    Napi::Object holder = Napi::Object::New(info.Env());
    holder.Set("sample", info[0]);
    holder.Set("timesteps", info[1]);
    sample_ = tensor(holder, "sample");
    timesteps_ = floats(holder, "timesteps");
  }
  void run(Context& context, EngineState& state) override {
    if (!state.models.unconditional)
      throw Error(ErrorCode::InvalidArgument, "Expected a pipeline with a UNet2DModel but this one has none");
    const UNet2d& unet = *state.models.unconditional;
    const Shape& s = sample_.shape;
    const auto count = static_cast<int64_t>(timesteps_.size());
    if (s.rank != 4 || s[1] != unet.config().inChannels || (count != 1 && count != s[0]))
      throw Error(
          ErrorCode::InvalidArgument,
          format("Expected a sample [B, %lld, H, W] with 1 or B timesteps but received %s with %zu",
                 static_cast<long long>(unet.config().inChannels), s.text().c_str(), timesteps_.size()));
    Arena::Scope scope(context.arena);
    const Tensor time = unet.prepareTime(context, timesteps_);
    const Tensor x = uploadImage(context, sample_.data.data(), s[0], s[1], s[2], s[3]);
    const Tensor y = unet.forward(context, x, time);
    shape_ = {y.shape[0], y.shape[3], y.shape[1], y.shape[2]};
    out_.resize(static_cast<size_t>(shape_.count()));
    context.backend.downloadImage(y, out_.data());
  }
  Napi::Value result(Napi::Env env) override { return toJs(env, out_, shape_); }

 private:
  JsTensor sample_;
  std::vector<float> timesteps_, out_;
  Shape shape_;
};

}  // namespace

ModelBuilder aroundBuilder(const std::string& component, const Napi::Object& config) {
  if (component == "unconditional")
    return [c = unet2dConfig(config)](Models& models, const WeightLoader& loader) {
      models.unconditional = std::make_unique<UNet2d>(c, loader);
    };
  if (component != "vae" && component != "previewVae")
    throw Error(
        ErrorCode::InvalidArgument,
        "Expected 'textEncoder', 'unet', 'vae', 'previewVae' or 'unconditional' but received " + component);
  std::optional<TinyVaeConfig> tiny;
  VaeConfig full;
  if (has(config, "encoderBlocks"))
    tiny = tinyVaeConfig(config);
  else
    full = vaeConfig(config);
  return [tiny, full, scaling = latentScaling(config), preview = component == "previewVae",
          wide = has(config, "wideRange") && boolean(config, "wideRange")](Models& models,
                                                                           const WeightLoader& loader) {
    const WideRange range(loader.backend(), wide);
    std::unique_ptr<Autoencoder> vae = makeAutoencoder(tiny, full, loader);
    vae->wideRange = wide;
    (preview ? models.previewVae : models.vae) = std::move(vae);
    (preview ? models.previewScaling : models.scaling) = scaling;
  };
}

void emitStep(Napi::Env env, Job& job, const GenerateEvent& e, const Shape& shape) {
  Napi::HandleScope scope(env);
  if (job.onStep.IsEmpty()) return;
  Napi::Object o = Napi::Object::New(env);
  o.Set("row", static_cast<double>(e.row));
  o.Set("step", e.step);
  o.Set("steps", e.steps);
  o.Set("timestep", e.timestep);
  if (!e.latents.empty()) {
    o.Set("latents", toJs(env, e.latents, shape));
    o.Set("predictedNoise", toJs(env, e.predictedNoise, shape));
    o.Set("predictedOriginal", toJs(env, e.predictedOriginal, shape));
  }
  if (!e.preview.empty()) o.Set("preview", toJs(env, e.preview));
  try {
    job.onStep.Call({o});
  } catch (const Napi::Error&) {  // lib/ catches what a listener throws; nothing is left to do here
    job.abort = true;
  }
}

std::shared_ptr<Job> predictUnconditionalJob(const Napi::CallbackInfo& info) {
  return std::make_shared<PredictUnconditional>(info);
}
std::shared_ptr<Job> unconditionalJobOf(const Napi::CallbackInfo& info) {
  return std::make_shared<Unconditional>(info);
}

}  // namespace nd::binding
