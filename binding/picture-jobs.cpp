// Pictures into latents and back, by themselves: what looking at the forward process and at the autoencoder
// needs.
#include "binding/convert.h"
#include "binding/jobs.h"

namespace nd::binding {

namespace {

const Autoencoder& vaeOf(const EngineState& state) {
  if (!state.models.vae)
    throw Error(ErrorCode::InvalidArgument, "Expected a pipeline with a VAE but this one has none");
  return *state.models.vae;
}

/// encodePictures(pictures, latentHeight, latentWidth) → the posterior's moments [n, 2C, h, w], or latents
/// [n, C, h, w]
class EncodePictures : public Job {
 public:
  explicit EncodePictures(const Napi::CallbackInfo& info)
      : Job(info.Env()), pictures_(pictures(info[0].As<Napi::Array>(), "pictures")) {
    height_ = info[1].As<Napi::Number>().Int64Value();
    width_ = info[2].As<Napi::Number>().Int64Value();
  }
  void run(Context& context, EngineState& state) override {
    const Autoencoder& vae = vaeOf(state);
    shape_ = {static_cast<int64_t>(pictures_.size()), (vae.posterior() ? 2 : 1) * vae.latentChannels(),
              height_, width_};
    for (const std::vector<float>& m : encodePictures(context, vae, pictures_, height_, width_))
      out_.insert(out_.end(), m.begin(), m.end());
  }
  Napi::Value result(Napi::Env env) override { return toJs(env, out_, shape_); }

 private:
  std::vector<Picture> pictures_;
  int64_t height_, width_;
  Shape shape_;
  std::vector<float> out_;
};

/// decodePictures(latents [n, C, h, w], as the step loop has them) → { pixels, width, height }
class DecodePictures : public Job {
 public:
  explicit DecodePictures(const Napi::CallbackInfo& info) : Job(info.Env()) {
    Napi::Object holder = Napi::Object::New(info.Env());
    holder.Set("latents", info[0]);
    latents_ = tensor(holder, "latents");
  }
  void run(Context& context, EngineState& state) override {
    const Autoencoder& vae = vaeOf(state);
    const Shape& s = latents_.shape;
    if (s.rank != 4 || s[1] != vae.latentChannels())
      throw Error(ErrorCode::InvalidArgument, "Expected latents of the VAE's channels");
    height_ = s[2] * vae.factor();
    width_ = s[3] * vae.factor();
    pixels_ = decodePixels(context, state.models, latents_.data, s);
  }
  Napi::Value result(Napi::Env env) override {
    Napi::Object o = Napi::Object::New(env);
    o.Set("pixels", toJs(env, pixels_));
    o.Set("width", static_cast<double>(width_));
    o.Set("height", static_cast<double>(height_));
    return o;
  }

 private:
  JsTensor latents_;
  int64_t height_ = 0, width_ = 0;
  std::vector<uint8_t> pixels_;
};

}  // namespace

std::shared_ptr<Job> encodePicturesJob(const Napi::CallbackInfo& info) {
  return std::make_shared<EncodePictures>(info);
}
std::shared_ptr<Job> decodePicturesJob(const Napi::CallbackInfo& info) {
  return std::make_shared<DecodePictures>(info);
}

}  // namespace nd::binding
