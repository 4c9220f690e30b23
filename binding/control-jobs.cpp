#include "binding/control-jobs.h"

#include <algorithm>

#include "binding/convert.h"
#include "binding/host-tensors.h"
#include "binding/weight-files.h"

namespace nd::binding {

namespace {

/// 'controlnet' or 't2iAdapter'
bool isAdapter(const Napi::Value& kind) {
  const std::string name = kind.As<Napi::String>();
  if (name != "controlnet" && name != "t2iAdapter")
    throw Error(ErrorCode::InvalidArgument, "Expected 'controlnet' or 't2iAdapter' but received " + name);
  return name == "t2iAdapter";
}

int64_t idOf(const Napi::Value& id) { return id.As<Napi::Number>().Int64Value(); }

template <class Map>
auto& found(Map& models, int64_t id) {
  const auto at = models.find(id);
  if (at == models.end())
    throw Error(ErrorCode::InvalidArgument, "Expected a loaded ControlNet or adapter but it was unloaded");
  return *at->second;
}

/// loadControl(kind, id, config, files, tensors)
class LoadControl : public Job {
 public:
  explicit LoadControl(const Napi::CallbackInfo& info) : Job(info.Env()) {
    const auto config = info[2].As<Napi::Object>();
    const int64_t id = idOf(info[1]);
    if (isAdapter(info[0])) {
      part_.component = "T2I-Adapter";
      part_.build = [id, c = t2iAdapterConfig(config)](Models& models, const WeightLoader& loader) {
        models.controls.adapters[id] = std::make_unique<T2iAdapter>(c, loader);
      };
    } else {
      part_.component = "ControlNet";
      part_.build = [id, c = controlNetConfig(config)](Models& models, const WeightLoader& loader) {
        models.controls.nets[id] = std::make_unique<ControlNet>(c, loader);
      };
    }
    readWeightFiles(info[3], info[4], part_);
  }
  void run(Context& context, EngineState& state) override {
    state.parts.load(context, state.models, std::move(part_));
  }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }

 private:
  ModelPart part_;
};

/// unloadControl(kind, id)
class UnloadControl : public Job {
 public:
  explicit UnloadControl(const Napi::CallbackInfo& info)
      : Job(info.Env()), adapter_(isAdapter(info[0])), id_(idOf(info[1])) {}
  void run(Context&, EngineState& state) override {
    if (adapter_)
      state.models.controls.adapters.erase(id_);
    else
      state.models.controls.nets.erase(id_);
  }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }

 private:
  bool adapter_;
  int64_t id_;
};

/// predictControl(id, { sample, timesteps, context, textEmbeds?, timeIds?, picture, scale, guess }) →
/// residuals
class PredictControl : public Job {
 public:
  explicit PredictControl(const Napi::CallbackInfo& info) : Job(info.Env()), id_(idOf(info[0])) {
    const auto o = info[1].As<Napi::Object>();
    sample_ = tensor(o, "sample");
    context_ = tensor(o, "context");
    picture_ = tensor(o, "picture");
    timesteps_ = floats(o, "timesteps");
    if (has(o, "textEmbeds")) added_.textEmbeds = tensor(o, "textEmbeds").data;
    if (has(o, "timeIds")) added_.timeIds = tensor(o, "timeIds").data;
    scale_ = number(o, "scale");
    guess_ = boolean(o, "guess");
  }
  void run(Context& context, EngineState& state) override {
    const ControlNet& net = found(state.models.controls.nets, id_);
    const ControlNetConfig& config = net.config();
    const Shape &in = sample_.shape, &p = picture_.shape;
    expectChannels(in, "sample", config.unet.inChannels);
    expectChannels(p, "picture", config.pictureChannels);
    if (p[0] != in[0] || p[2] != in[2] * net.factor() || p[3] != in[3] * net.factor())
      throw Error(ErrorCode::InvalidArgument,
                  format("Expected a picture of %lld times the sample's size for each sample but received %s",
                         static_cast<long long>(net.factor()), p.text().c_str()));
    if (config.unet.addedTimeWidth > 0) {
      if (added_.textEmbeds.empty() || added_.timeIds.empty())
        throw Error(
            ErrorCode::InvalidArgument,
            "Expected added.textEmbeds and added.timeIds for this ControlNet (SDXL) but received none");
      if (timesteps_.size() == 1) timesteps_.assign(static_cast<size_t>(in[0]), timesteps_[0]);
    }
    if (config.bgr) {  // given in RGB
      const auto plane = static_cast<ptrdiff_t>(p[2] * p[3]);
      for (auto image = picture_.data.begin(); image != picture_.data.end(); image += 3 * plane)
        std::swap_ranges(image, image + plane, image + 2 * plane);
    }
    Arena::Scope scope(context.arena);
    const UNet::Text text = net.prepareText(context, upload(context, context_.data, context_.shape));
    const UNet::Time time =
        net.prepareTime(context, timesteps_, static_cast<int64_t>(timesteps_.size()), added_);
    const Tensor x = uploadImage(context, sample_.data.data(), in[0], in[1], in[2], in[3]);
    const Tensor hint = net.hint(context, uploadImage(context, picture_.data.data(), p[0], p[1], p[2], p[3]));
    const bool graded = guess_ && !config.globalPool;
    net.forward(context, x, hint, time, 0, text, [&](size_t i, const Tensor& residual) {
      HostImage image = downloadedImage(context, residual);
      const double scale = graded ? scale_ * guessScale(i, net.count()) : scale_;
      for (float& v : image.data) v *= static_cast<float>(scale);
      out_.push_back(std::move(image));
    });
  }
  Napi::Value result(Napi::Env env) override {
    const auto list = Napi::Array::New(env, out_.size());
    for (uint32_t i = 0; i < out_.size(); i++) list.Set(i, toJs(env, out_[i].data, out_[i].shape));
    return list;
  }

 private:
  int64_t id_;
  JsTensor sample_, context_, picture_;
  std::vector<float> timesteps_;
  AddedConditions added_;
  double scale_;
  bool guess_;
  std::vector<HostImage> out_;
};

/// adapterMaps(id, picture: { data, width, height }, height, width) → [1, C, h, w][]
class AdapterMapsJob : public Job {
 public:
  explicit AdapterMapsJob(const Napi::CallbackInfo& info) : Job(info.Env()), id_(idOf(info[0])) {
    const auto list = Napi::Array::New(info.Env(), 1);
    list.Set(0u, info[1]);
    picture_ = pictures(list, "picture")[0];
    height_ = idOf(info[2]);
    width_ = idOf(info[3]);
  }
  void run(Context& context, EngineState& state) override {
    const T2iAdapter& adapter = found(state.models.controls.adapters, id_);
    const T2iAdapterConfig& c = adapter.config();
    const int64_t f = c.downscaleFactor;
    Arena::Scope scope(context.arena);
    const std::vector<float> tiles = adapterTiles(picture_, height_, width_, c.inChannels, f);
    const Tensor x = uploadImage(context, tiles.data(), 1, c.inChannels * f * f, height_ / f, width_ / f);
    for (const Tensor& map : adapter(context, x)) out_.push_back(downloadedImage(context, map));
  }
  Napi::Value result(Napi::Env env) override {
    const auto list = Napi::Array::New(env, out_.size());
    for (uint32_t i = 0; i < out_.size(); i++) list.Set(i, toJs(env, out_[i].data, out_[i].shape));
    return list;
  }

 private:
  int64_t id_, height_, width_;
  Picture picture_;
  std::vector<HostImage> out_;
};

}  // namespace

std::shared_ptr<Job> loadControlJob(const Napi::CallbackInfo& info) {
  return std::make_shared<LoadControl>(info);
}
std::shared_ptr<Job> unloadControlJob(const Napi::CallbackInfo& info) {
  return std::make_shared<UnloadControl>(info);
}
std::shared_ptr<Job> predictControlJob(const Napi::CallbackInfo& info) {
  return std::make_shared<PredictControl>(info);
}
std::shared_ptr<Job> adapterMapsJob(const Napi::CallbackInfo& info) {
  return std::make_shared<AdapterMapsJob>(info);
}

}  // namespace nd::binding
