#include "binding/jobs.h"

#include "binding/convert.h"
#include "binding/host-tensors.h"

namespace nd::binding {

namespace {

[[noreturn]] void notLoaded(const char* what) {
  throw Error(ErrorCode::InvalidArgument,
              format("Expected a pipeline with a %s but this one has none", what));
}

/// encodeText(encoder, ids, length, mask?)
class EncodeText : public Job {
 public:
  explicit EncodeText(const Napi::CallbackInfo& info) : Job(info.Env()) {
    encoder_ = info[0].As<Napi::Number>().Uint32Value();
    const auto ids = info[1].As<Napi::Int32Array>();
    ids_.assign(ids.Data(), ids.Data() + ids.ElementLength());
    length_ = info[2].As<Napi::Number>().Int64Value();
    if (info[3].IsTypedArray()) {
      const auto mask = info[3].As<Napi::Uint8Array>();
      mask_.assign(mask.Data(), mask.Data() + mask.ElementLength());
    }
  }
  void run(Context& context, EngineState& state) override {
    if (encoder_ >= state.models.textEncoders.size()) notLoaded("text encoder of that number");
    Arena::Scope scope(context.arena);
    const TextEncoder::Output out =
        state.models.textEncoders[encoder_]->encode(context, ids_, length_, mask_);
    shape_ = out.last.shape;
    for (const Tensor& h : out.hiddenStates) hidden_.push_back(downloaded(context, h));
    last_ = downloaded(context, out.last);
    if (out.pooled) pooled_ = downloaded(context, out.pooled);
    if (out.projected) projected_ = downloaded(context, out.projected);
  }
  Napi::Value result(Napi::Env env) override {
    Napi::Object o = Napi::Object::New(env);
    const int64_t rows = shape_[0];
    const auto hidden = Napi::Array::New(env, hidden_.size());
    for (uint32_t i = 0; i < hidden_.size(); i++) hidden.Set(i, toJs(env, hidden_[i], shape_));
    o.Set("hiddenStates", hidden);
    o.Set("lastHiddenState", toJs(env, last_, shape_));
    if (!pooled_.empty()) o.Set("pooled", toJs(env, pooled_, {rows, shape_[2]}));
    if (!projected_.empty())
      o.Set("projected", toJs(env, projected_, {rows, static_cast<int64_t>(projected_.size()) / rows}));
    return o;
  }

 private:
  uint32_t encoder_;
  std::vector<int32_t> ids_;
  std::vector<uint8_t> mask_;
  int64_t length_;
  Shape shape_;
  std::vector<std::vector<float>> hidden_;
  std::vector<float> last_, pooled_, projected_;
};

/// predict({ sample, timesteps: Float32Array [1 or B], context, textEmbeds?, timeIds?, timeCond?,
/// noiseLevel?, residuals?, adapterMaps?, perturbed?, blocks })
class Predict : public Job {
 public:
  explicit Predict(const Napi::CallbackInfo& info) : Job(info.Env()) {
    const auto o = info[0].As<Napi::Object>();
    sample_ = tensor(o, "sample");
    context_ = tensor(o, "context");
    timesteps_ = floats(o, "timesteps");
    if (has(o, "textEmbeds")) added_.textEmbeds = tensor(o, "textEmbeds").data;
    if (has(o, "timeIds")) added_.timeIds = tensor(o, "timeIds").data;
    if (has(o, "timeCond")) added_.timeCond = tensor(o, "timeCond").data;
    if (has(o, "noiseLevel")) added_.noiseLevel = floats(o, "noiseLevel");
    if (has(o, "residuals")) residuals_ = tensors(o, "residuals");
    if (has(o, "adapterMaps")) adapterMaps_ = tensors(o, "adapterMaps");
    if (has(o, "perturbed")) perturbed_ = ints(o, "perturbed");
    wantBlocks_ = boolean(o, "blocks");
  }
  void run(Context& context, EngineState& state) override {
    if (!state.models.unet) notLoaded("UNet");
    const UNet& unet = *state.models.unet;
    const Shape& in = sample_.shape;
    expectChannels(in, "sample", unet.config().inChannels);
    if (context_.shape.rank != 3 || context_.shape[0] != in[0] || context_.shape[2] != unet.textWidth())
      throw Error(ErrorCode::InvalidArgument,
                  format("Expected shape [%lld, tokens, %lld] for context but received %s",
                         static_cast<long long>(in[0]), static_cast<long long>(unet.textWidth()),
                         context_.shape.text().c_str()));
    if (timesteps_.size() != 1 && timesteps_.size() != static_cast<size_t>(in[0]))
      throw Error(ErrorCode::InvalidArgument,
                  format("Expected one timestep or one per sample (%lld) but received %zu",
                         static_cast<long long>(in[0]), timesteps_.size()));
    const bool needsAdded = unet.config().addedTimeWidth > 0;
    if (needsAdded && (added_.textEmbeds.empty() || added_.timeIds.empty()))
      throw Error(ErrorCode::InvalidArgument,
                  "Expected added.textEmbeds and added.timeIds for this UNet (SDXL) but received none");
    const bool perSample = needsAdded || unet.poolsText() || unet.config().classTimestep;
    if (timesteps_.size() == 1 && (perSample || !added_.timeCond.empty()))
      timesteps_.assign(static_cast<size_t>(in[0]), timesteps_[0]);

    Arena::Scope scope(context.arena);
    const Tensor states = upload(context, context_.data, context_.shape);
    if (unet.poolsText()) added_.pooledText = unet.poolText(context, states);
    UNet::Text text = unet.prepareText(context, states);
    UNet::perturb(text, perturbed_, {0, in[0]});
    const UNet::Time time =
        unet.prepareTime(context, timesteps_, static_cast<int64_t>(timesteps_.size()), added_);
    const UNet::Probe probe = [&](const std::string& name, const Tensor& value) {
      if (value.shape.rank == 4)
        blocks_.push_back({name, downloadedImage(context, value)});
      else
        blocks_.push_back({name, {downloaded(context, value), value.shape}});
    };
    const Tensor x = uploadImage(context, sample_.data.data(), in[0], in[1], in[2], in[3]);
    const UNet::Joined joined = join(context);
    out_ = downloadedImage(context,
                           unet.forward(context, x, time, 0, text, wantBlocks_ ? &probe : nullptr, joined));
  }
  Napi::Value result(Napi::Env env) override {
    Napi::Object o = Napi::Object::New(env);
    o.Set("sample", toJs(env, out_.data, out_.shape));
    if (wantBlocks_) {
      Napi::Object blocks = Napi::Object::New(env);
      for (const auto& [name, value] : blocks_) blocks.Set(name, toJs(env, value.data, value.shape));
      o.Set("blocks", blocks);
    }
    return o;
  }

 private:
  /// What ControlNets and adapters made, given by the caller: one residual per skip and the middle's.
  UNet::Joined join(Context& context) {
    const auto uploaded = [&](const JsTensor& t) {
      if (t.shape.rank != 4) throw Error(ErrorCode::InvalidArgument, "Expected residuals [batch, C, h, w]");
      return uploadImage(context, t.data.data(), t.shape[0], t.shape[1], t.shape[2], t.shape[3]);
    };
    UNet::Joined joined;
    if (!adapterMaps_.empty()) {
      adapter_.emplace_back();
      for (const JsTensor& t : adapterMaps_) adapter_[0].maps.push_back(uploaded(t));
      joined.adapters = adapter_;
    }
    if (!residuals_.empty()) {
      std::vector<Tensor> all;
      for (const JsTensor& t : residuals_) all.push_back(uploaded(t));
      joined.control = [&context, all](std::span<const Tensor> skips, const Tensor& mid) {
        if (all.size() != skips.size() + 1)
          throw Error(ErrorCode::InvalidArgument,
                      format("Expected %zu residuals, one per skip and the middle's, but received %zu",
                             skips.size() + 1, all.size()));
        for (size_t i = 0; i < all.size(); i++)
          addResidual(context, i < skips.size() ? skips[i] : mid, all[i], 1);
      };
    }
    return joined;
  }
  JsTensor sample_, context_;
  std::vector<float> timesteps_;
  AddedConditions added_;
  std::vector<JsTensor> residuals_, adapterMaps_;
  std::vector<AdapterMaps> adapter_;
  std::vector<int32_t> perturbed_;
  bool wantBlocks_;
  HostImage out_;
  std::vector<std::pair<std::string, HostImage>> blocks_;
};

/// vaeEncode(picture, tiling?) → moments, or latents; vaeDecode(latents, tiling?) → picture
class VaeRun : public Job {
 public:
  VaeRun(const Napi::CallbackInfo& info, bool encode) : Job(info.Env()), encode_(encode) {
    Napi::Object holder = Napi::Object::New(info.Env());
    holder.Set(name(), info[0]);
    in_ = tensor(holder, name());
    if (info.Length() > 1 && info[1].IsObject()) tiling_ = vaeTiling(info[1].As<Napi::Object>());
  }
  void run(Context& context, EngineState& state) override {
    if (!state.models.vae) notLoaded("VAE");
    std::optional<TiledAutoencoder> tiled;
    if (tiling_) tiled.emplace(*state.models.vae, *tiling_);
    const Autoencoder& vae = tiled ? static_cast<const Autoencoder&>(*tiled) : *state.models.vae;
    const Shape& s = in_.shape;
    expectChannels(s, name(), encode_ ? vae.inChannels() : vae.latentChannels());
    const size_t each = in_.data.size() / static_cast<size_t>(s[0]);
    const WideRange range(context.backend, vae.wideRange);
    for (int64_t b = 0; b < s[0]; b++) {  // one at a time, to bound memory
      Arena::Scope scope(context.arena);
      const Tensor x =
          uploadImage(context, in_.data.data() + static_cast<size_t>(b) * each, 1, s[1], s[2], s[3]);
      const HostImage one =
          downloadedImage(context, encode_ ? vae.encode(context, x) : vae.decode(context, x));
      out_.data.insert(out_.data.end(), one.data.begin(), one.data.end());
      out_.shape = one.shape;
    }
    out_.shape.dim[0] = s[0];
  }
  Napi::Value result(Napi::Env env) override { return toJs(env, out_.data, out_.shape); }

 private:
  const char* name() const { return encode_ ? "picture" : "latents"; }
  bool encode_;
  std::optional<VaeTiling> tiling_;
  JsTensor in_;
  HostImage out_;
};

/// generate(job, onStep?)
class Generate : public Job {
 public:
  explicit Generate(const Napi::CallbackInfo& info)
      : Job(info.Env()), job_(generateJob(info[0].As<Napi::Object>())) {
    if (info.Length() > 1 && info[1].IsFunction()) onStep = Napi::Persistent(info[1].As<Napi::Function>());
    listening_ = !onStep.IsEmpty();
  }
  void run(Context& context, EngineState& state) override {
    if (!state.models.unet) notLoaded("UNet");
    std::function<void(GenerateEvent &&)> listener;
    if (listening_)
      listener = [this](GenerateEvent&& event) {
        auto shared = std::make_shared<GenerateEvent>(std::move(event));
        post([this, shared](Napi::Env env) { emit(env, *shared); });
      };
    out_ = generate(context, state.models, job_, listener);
  }
  Napi::Value result(Napi::Env env) override { return toJs(env, out_); }

 private:
  void emit(Napi::Env env, const GenerateEvent& e) {
    emitStep(env, *this, e,
             {job_.prompts * job_.imagesPerPrompt, latentChannels(e), job_.latentHeight, job_.latentWidth});
  }
  int64_t latentChannels(const GenerateEvent& e) const {
    const int64_t pixels = job_.prompts * job_.imagesPerPrompt * job_.latentHeight * job_.latentWidth;
    return static_cast<int64_t>(e.latents.size()) / pixels;
  }
  GenerateJob job_;
  bool listening_;
  GenerateResult out_;
};

/// unload(): frees weights and activations.
class Unload : public Job {
 public:
  using Job::Job;
  void run(Context&, EngineState& state) override {
    state.models = {};
    state.parts = {};
    state.arena->trim();
  }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }
};

/// profile(on): entries since the last call.
class ProfileRead : public Job {
 public:
  explicit ProfileRead(const Napi::CallbackInfo& info) : Job(info.Env()), on_(info[0].As<Napi::Boolean>()) {}
  void run(Context&, EngineState& state) override {
    out_ = std::exchange(state.profile, {});
    state.profiling = on_;
  }
  Napi::Value result(Napi::Env env) override {
    const auto list = Napi::Array::New(env);
    for (const auto& [name, entry] : out_.entries) {
      Napi::Object o = Napi::Object::New(env);
      o.Set("operation", name);
      o.Set("seconds", entry.seconds);
      o.Set("flops", entry.flops);
      o.Set("calls", static_cast<double>(entry.calls));
      list.Set(list.Length(), o);
    }
    return list;
  }

 private:
  bool on_;
  Profile out_;
};

class MemoryRead : public Job {
 public:
  using Job::Job;
  void run(Context& context, EngineState& state) override {
    out_ = context.backend.memory();
    out_.activations = state.arena->peakBytes();
  }
  Napi::Value result(Napi::Env env) override {
    Napi::Object o = Napi::Object::New(env);
    o.Set("weights", static_cast<double>(out_.weights));
    o.Set("activations", static_cast<double>(out_.activations));
    return o;
  }

 private:
  MemoryUse out_;
};

}  // namespace

std::shared_ptr<Job> encodeTextJob(const Napi::CallbackInfo& info) {
  return std::make_shared<EncodeText>(info);
}
std::shared_ptr<Job> predictJob(const Napi::CallbackInfo& info) { return std::make_shared<Predict>(info); }
std::shared_ptr<Job> vaeJob(const Napi::CallbackInfo& info, bool encode) {
  return std::make_shared<VaeRun>(info, encode);
}
std::shared_ptr<Job> generateJobOf(const Napi::CallbackInfo& info) {
  return std::make_shared<Generate>(info);
}
std::shared_ptr<Job> unloadJob(const Napi::CallbackInfo& info) {
  return std::make_shared<Unload>(info.Env());
}
std::shared_ptr<Job> profileJob(const Napi::CallbackInfo& info) {
  return std::make_shared<ProfileRead>(info);
}
std::shared_ptr<Job> memoryJob(const Napi::CallbackInfo& info) {
  return std::make_shared<MemoryRead>(info.Env());
}

}  // namespace nd::binding
