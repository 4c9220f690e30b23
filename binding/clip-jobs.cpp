// Jobs of CLIP's image tower and of IP-Adapters.
#include "binding/convert.h"
#include "binding/jobs.h"

namespace nd::binding {

namespace {

/// encodeImages({ pictures: { data, width, height }[], preprocessing } or { pixels: tensor }, and
///   hiddenStates: 'none' | 'penultimate' | 'all' })
class EncodeImages : public Job {
 public:
  explicit EncodeImages(const Napi::CallbackInfo& info) : Job(info.Env()) {
    const auto o = info[0].As<Napi::Object>();
    if (has(o, "pixels")) {
      pixels_ = tensor(o, "pixels");
    } else {
      pictures_ = pictures(array(o, "pictures"), "pictures");
      preprocessing_ = clipPreprocessing(object(o, "preprocessing"));
    }
    const std::string states = string(o, "hiddenStates");
    all_ = states == "all";
    penultimate_ = states == "penultimate";
  }
  void run(Context& context, EngineState& state) override {
    if (!state.models.imageEncoder)
      throw Error(ErrorCode::InvalidArgument, "Expected a loaded image encoder but there is none");
    const ClipVision& encoder = *state.models.imageEncoder;
    const int64_t count = pixels_ ? pixels_->shape[0] : static_cast<int64_t>(pictures_.size());
    for (int64_t b = 0; b < count; b++) {  // one at a time, to bound memory
      Arena::Scope scope(context.arena);
      const ClipVision::Output out = encoder.encode(context, pixels(b, encoder.config()), 1);
      // The last one always; before it what was asked for.
      const size_t count = out.hiddenStates.size(), first = all_ ? 0 : count - (penultimate_ ? 2 : 1);
      hidden_.resize(count - first);
      tokens_ = out.hiddenStates.back().shape;
      for (size_t i = first; i < count; i++) append(context, out.hiddenStates[i], hidden_[i - first]);
      append(context, out.pooled, pooled_);
      if (out.projected) append(context, out.projected, projected_);
    }
    tokens_.dim[0] = count;
  }
  Napi::Value result(Napi::Env env) override {
    Napi::Object o = Napi::Object::New(env);
    const int64_t count = tokens_[0];
    if (penultimate_) o.Set("penultimate", toJs(env, hidden_.front(), tokens_));
    if (all_) {
      const auto hidden = Napi::Array::New(env, hidden_.size());
      for (uint32_t i = 0; i < hidden_.size(); i++) hidden.Set(i, toJs(env, hidden_[i], tokens_));
      o.Set("hiddenStates", hidden);
    }
    o.Set("lastHiddenState", toJs(env, hidden_.back(), tokens_));
    o.Set("pooled", toJs(env, pooled_, {count, tokens_[2]}));
    if (!projected_.empty())
      o.Set("projected", toJs(env, projected_, {count, static_cast<int64_t>(projected_.size()) / count}));
    return o;
  }

 private:
  std::vector<float> pixels(int64_t b, const ClipVisionConfig& config) const {
    if (pixels_) {
      const Shape& s = pixels_->shape;
      if (s.rank != 4 || s[1] != config.channels || s[2] != config.imageSize || s[3] != config.imageSize)
        throw Error(ErrorCode::InvalidArgument,
                    format("Expected shape [batch, %lld, %lld, %lld] for pixels but received %s",
                           static_cast<long long>(config.channels), static_cast<long long>(config.imageSize),
                           static_cast<long long>(config.imageSize), s.text().c_str()));
      const auto each = static_cast<ptrdiff_t>(s[1] * s[2] * s[3]);
      return {pixels_->data.begin() + b * each, pixels_->data.begin() + (b + 1) * each};
    }
    ClipPixels out = clipPixels(pictures_[static_cast<size_t>(b)], preprocessing_);
    if (out.width != config.imageSize || out.height != config.imageSize)
      throw Error(
          ErrorCode::InvalidArgument,
          format("Expected preprocessing to end at %lld × %lld pixels, as the image encoder takes "
                 "them, but it makes %lld × %lld; does preprocessor_config.json belong to this model?",
                 static_cast<long long>(config.imageSize), static_cast<long long>(config.imageSize),
                 static_cast<long long>(out.width), static_cast<long long>(out.height)));
    return std::move(out.values);
  }
  static void append(Context& context, const Tensor& t, std::vector<float>& to) {
    const size_t at = to.size();
    to.resize(at + static_cast<size_t>(t.shape.count()));
    context.backend.download(t, to.data() + at);
  }

  std::vector<Picture> pictures_;
  ClipPreprocessing preprocessing_;
  std::optional<JsTensor> pixels_;
  bool all_, penultimate_;
  Shape tokens_;  // [B, 1 + patches, C]
  std::vector<std::vector<float>> hidden_;
  std::vector<float> pooled_, projected_;
};

/// unloadIpAdapters(): them and the image encoder.
class UnloadIpAdapters : public Job {
 public:
  using Job::Job;
  void run(Context&, EngineState& state) override {
    state.models.ipAdapters.clear();
    state.models.imageEncoder.reset();
  }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }
};

}  // namespace

ModelBuilder imagePromptBuilder(const std::string& component, const Napi::Object& config) {
  if (component == "imageEncoder")
    return [c = clipVisionConfig(config)](Models& models, const WeightLoader& loader) {
      models.imageEncoder = std::make_unique<ClipVision>(c, loader);
    };
  return [c = ipAdapterConfig(config)](Models& models, const WeightLoader& loader) {
    models.ipAdapters.push_back(std::make_unique<IpAdapter>(c, loader));
  };
}

std::shared_ptr<Job> unloadIpAdaptersJob(const Napi::CallbackInfo& info) {
  return std::make_shared<UnloadIpAdapters>(info.Env());
}
std::shared_ptr<Job> encodeImagesJob(const Napi::CallbackInfo& info) {
  return std::make_shared<EncodeImages>(info);
}

}  // namespace nd::binding
