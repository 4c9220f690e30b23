// The jobs that load what a pipeline is made of: its components, and adapters and added tokens later.
#include "binding/convert.h"
#include "binding/jobs.h"
#include "binding/weight-files.h"

namespace nd::binding {

namespace {

std::unique_ptr<TextEncoder> makeTextEncoder(const TextConfig& config, const WeightLoader& loader) {
  if (const auto* bert = std::get_if<LdmBertConfig>(&config)) return std::make_unique<LdmBert>(*bert, loader);
  if (const auto* t5 = std::get_if<T5Config>(&config)) return std::make_unique<T5Encoder>(*t5, loader);
  return std::make_unique<ClipText>(std::get<ClipTextConfig>(config), loader);
}

/// A text encoder goes behind those that are loaded; built anew it takes its place and its added tokens.
void placeTextEncoder(Models& models, size_t index, std::unique_ptr<TextEncoder> encoder) {
  auto& all = models.textEncoders;
  if (index == all.size()) {
    all.push_back(std::move(encoder));
    return;
  }
  encoder->setAddedTokens(all[index]->addedTokens());
  all[index] = std::move(encoder);
}

/// load('textEncoder' | 'unet' | 'vae' | …, config, files, [name, file, stored, { rows?, transpose? }?][])
class Load : public Job {
 public:
  explicit Load(const Napi::CallbackInfo& info) : Job(info.Env()) {
    part_.component = info[0].As<Napi::String>();
    const std::string& component = part_.component;
    const auto config = info[1].As<Napi::Object>();
    if (component == "unet")
      part_.build = [c = unetConfig(config)](Models& models, const WeightLoader& loader) {
        models.unet = std::make_unique<UNet>(c, loader);
      };
    else if (component == "textEncoder")
      text_ = textConfig(config);
    else if (component == "imageEncoder" || component == "ipAdapter")
      part_.build = imagePromptBuilder(component, config);
    else
      part_.build = aroundBuilder(component, config);
    part_.adaptable = component == "unet" || component == "textEncoder";
    readWeightFiles(info[2], info[3], part_);
  }
  void run(Context& context, EngineState& state) override {
    if (text_) {
      part_.index = state.models.textEncoders.size();
      part_.build = [c = *text_, index = part_.index](Models& models, const WeightLoader& loader) {
        placeTextEncoder(models, index, makeTextEncoder(c, loader));
      };
    }
    state.parts.load(context, state.models, std::move(part_));
  }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }

 private:
  ModelPart part_;
  std::optional<TextConfig> text_;
};

ChangeKind changeKind(const std::string& name) {
  if (name == "lowRank") return ChangeKind::LowRank;
  if (name == "hadamard") return ChangeKind::Hadamard;
  if (name == "kronecker") return ChangeKind::Kronecker;
  if (name == "difference") return ChangeKind::Difference;
  throw Error(ErrorCode::InvalidArgument, "Expected a kind of change but received " + name);
}

/// addAdapter(id, path, { component, index, tensor, kind, parts: [role, stored][], scale, rank, peft }[])
class AddAdapter : public Job {
 public:
  explicit AddAdapter(const Napi::CallbackInfo& info) : Job(info.Env()) {
    id_ = info[0].As<Napi::Number>().Uint32Value();
    path_ = info[1].As<Napi::String>();
    const auto changes = info[2].As<Napi::Array>();
    for (uint32_t i = 0; i < changes.Length(); i++) {
      const auto o = changes.Get(i).As<Napi::Object>();
      WeightChange change;
      change.component = string(o, "component");
      change.index = static_cast<size_t>(integer(o, "index"));
      change.tensor = string(o, "tensor");
      change.kind = changeKind(string(o, "kind"));
      change.scale = number(o, "scale");
      change.rank = number(o, "rank");
      change.magnitude = boolean(o, "peft") ? Magnitude::Scaled : Magnitude::Merged;
      const Napi::Array parts = array(o, "parts");
      for (uint32_t p = 0; p < parts.Length(); p++) {
        const auto part = parts.Get(p).As<Napi::Array>();
        change.parts[part.Get(0u).As<Napi::String>()] = part.Get(1u).As<Napi::String>();
      }
      changes_.push_back(std::move(change));
    }
  }
  void run(Context&, EngineState& state) override { state.parts.addAdapter(id_, path_, std::move(changes_)); }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }

 private:
  uint32_t id_;
  std::string path_;
  std::vector<WeightChange> changes_;
};

/// removeAdapter(id)
class RemoveAdapter : public Job {
 public:
  explicit RemoveAdapter(const Napi::CallbackInfo& info)
      : Job(info.Env()), id_(info[0].As<Napi::Number>().Uint32Value()) {}
  void run(Context&, EngineState& state) override { state.parts.removeAdapter(id_); }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }

 private:
  uint32_t id_;
};

/// applyAdapters(): its adapters are put in place before it runs, and that is all.
class ApplyAdapters : public Job {
 public:
  using Job::Job;
  void run(Context&, EngineState&) override {}
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }
};

/// setAddedTokens(encoder, values [rows, width]): embeddings of the tokens behind the vocabulary.
class SetAddedTokens : public Job {
 public:
  explicit SetAddedTokens(const Napi::CallbackInfo& info) : Job(info.Env()) {
    encoder_ = info[0].As<Napi::Number>().Uint32Value();
    const auto values = info[1].As<Napi::Float32Array>();
    values_.assign(values.Data(), values.Data() + values.ElementLength());
  }
  void run(Context& context, EngineState& state) override {
    if (encoder_ >= state.models.textEncoders.size())
      throw Error(ErrorCode::InvalidArgument, "Expected a text encoder that the model has");
    TextEncoder& encoder = *state.models.textEncoders[encoder_];
    WeightPtr table;
    if (!values_.empty()) {
      const int64_t width = encoder.width();
      const HostTensor part{
          values_.data(), DType::F32, {static_cast<int64_t>(values_.size()) / width, width}, "added tokens"};
      table = context.backend.makeWeight(WeightKind::Table, std::span(&part, 1));
    }
    encoder.setAddedTokens(std::move(table));
  }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }

 private:
  uint32_t encoder_;
  std::vector<float> values_;
};

}  // namespace

std::shared_ptr<Job> loadJob(const Napi::CallbackInfo& info) { return std::make_shared<Load>(info); }
std::shared_ptr<Job> addAdapterJob(const Napi::CallbackInfo& info) {
  return std::make_shared<AddAdapter>(info);
}
std::shared_ptr<Job> removeAdapterJob(const Napi::CallbackInfo& info) {
  return std::make_shared<RemoveAdapter>(info);
}
std::shared_ptr<Job> applyAdaptersJob(const Napi::CallbackInfo& info) {
  return std::make_shared<ApplyAdapters>(info.Env());
}
std::shared_ptr<Job> setAddedTokensJob(const Napi::CallbackInfo& info) {
  return std::make_shared<SetAddedTokens>(info);
}

}  // namespace nd::binding
