// Models of real shapes with random weights, made in memory: what their speed depends on, and whether two
// backends agree, without anybody's gigabytes.
#pragma once

#include <cmath>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/half.h"
#include "engine/models/unet.h"
#include "engine/models/vae.h"

namespace nd::bench {

/// Every tensor that is asked for, F16: norms scale by about 1, matrices keep the variance of what goes
/// through them, biases are small. The values depend on the tensor's name alone, so that every backend gets
/// the same.
class RandomTensors final : public TensorMap {
 public:
  using TensorMap::TensorMap;
  HostTensor get(const std::string& name, const Shape& shape) const override {
    const auto count = static_cast<size_t>(shape.count());
    std::vector<uint16_t> values(count);
    std::minstd_rand random(static_cast<unsigned>(std::hash<std::string>()(name)) | 1u);
    const bool vector = shape.rank == 1, scale = vector && name.find("weight") != std::string::npos;
    const float spread =
        vector ? 0.1f : std::sqrt(3.0f / static_cast<float>(shape.count() / std::max<int64_t>(shape[0], 1)));
    for (uint16_t& v : values) {
      const float uniform = static_cast<float>(random() & 0xffff) / 32768 - 1;
      v = floatToHalf((scale ? 1.0f : 0.0f) + spread * uniform);
    }
    const void* data = values.data();
    alive_.emplace(data, std::move(values));
    return {data, DType::F16, shape, name};
  }
  void discard(const HostTensor& tensor) const override { alive_.erase(tensor.data); }

 private:
  mutable std::map<const void*, std::vector<uint16_t>> alive_;
};

struct ModelShape {
  std::string name;
  UNetConfig unet;
  VaeConfig vae;
  int64_t latent = 64;      // side of the latents
  int64_t pooledWidth = 0;  // SDXL
};

inline ModelShape modelShape(const std::string& name) {
  ModelShape m;
  m.name = name;
  const auto levels = [&](std::vector<int64_t> channels, std::vector<int> heads, std::vector<int> layers,
                          int64_t context) {
    for (size_t i = 0; i < channels.size(); i++)
      m.unet.levels.push_back({channels[i], 2, heads[i], layers[i], heads[i], layers[i], context});
  };
  m.vae.channels = {128, 256, 512, 512};
  m.vae.resnets = 2;
  if (name == "sd15") {
    levels({320, 640, 1280, 1280}, {8, 8, 8, 0}, {1, 1, 1, 1}, 768);
    m.unet.midHeads = 8;
  } else if (name == "sd21") {
    levels({320, 640, 1280, 1280}, {5, 10, 20, 0}, {1, 1, 1, 1}, 1024);
    m.unet.midHeads = 20;
    m.latent = 96;
  } else if (name == "sdxl") {
    levels({320, 640, 1280}, {0, 10, 20}, {1, 2, 10}, 2048);
    m.unet.midHeads = 20, m.unet.midTransformerLayers = 10;
    m.unet.addedTimeWidth = 256, m.unet.addedInputWidth = 2816;
    m.pooledWidth = 1280;
    m.latent = 128;
  } else if (name == "tiny") {
    levels({32, 64}, {2, 4}, {1, 2}, 24);
    m.unet.midHeads = 4, m.unet.midTransformerLayers = 2;
    m.unet.normGroups = 8;
    m.vae.channels = {16, 24};
    m.vae.resnets = 1;
    m.vae.normGroups = 8;
    m.latent = 7;  // odd: the up path resizes to the skips' sizes
  } else {
    throw Error(ErrorCode::InvalidArgument,
                "Expected a model out of sd15, sd21, sdxl, tiny but received " + name);
  }
  return m;
}

inline std::vector<float> randomValues(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  // Sums of uniforms: near enough to normal, and of variance 1.
  for (float& v : values)
    v = static_cast<float>((random() + 0.0 + random() + random()) / 4294967296.0 - 1.5) * 2;
  return values;
}

constexpr int kRows = 50;  // of a plan

/// What goes into a UNet for the two branches of one image.
struct ModelInputs {
  std::vector<float> sample, text, textEmbeds, timeIds;  // [2, 4, side, side], [2, 77, width], …
  std::vector<float> timesteps;                          // [kRows]
};
inline ModelInputs randomInputs(const ModelShape& shape, int64_t side) {
  ModelInputs in;
  in.sample = randomValues(2 * 4 * side * side, 3);
  in.text = randomValues(2 * 77 * shape.unet.levels[0].contextWidth, 1);
  if (shape.pooledWidth) {
    in.textEmbeds = randomValues(2 * shape.pooledWidth, 2);
    in.timeIds = {1024, 1024, 0, 0, 1024, 1024, 1024, 1024, 0, 0, 1024, 1024};
  }
  for (int row = 0; row < kRows; row++) in.timesteps.push_back(static_cast<float>(981 - 20 * row));
  return in;
}

/// One model on one backend, and its inputs.
class RandomModel {
 public:
  RandomModel(Backend& backend, const ModelShape& shape, int64_t latent = 0)
      : RandomModel(backend, shape, latent ? latent : shape.latent, RandomTensors("unet"),
                    randomInputs(shape, latent ? latent : shape.latent)) {}
  RandomModel(Backend& backend, const ModelShape& shape, int64_t side, const TensorMap& tensors,
              ModelInputs inputs)
      : inputs_(std::move(inputs)),
        side_(side),
        arena_(backend),
        context_{backend, arena_},
        unet_(shape.unet, WeightLoader(backend, tensors)) {
    text_ = upload(context_, inputs_.text, {2, 77, shape.unet.levels[0].contextWidth});
    keysValues_ = unet_.prepareText(context_, text_);
    const int64_t perRow = shape.pooledWidth ? 2 : 1;
    std::vector<float> timesteps;
    for (const float t : inputs_.timesteps) timesteps.insert(timesteps.end(), static_cast<size_t>(perRow), t);
    time_ = unet_.prepareTime(context_, timesteps, perRow, {inputs_.textEmbeds, inputs_.timeIds, {}});
    current_ = unet_.oneTime(context_, time_);
  }

  Context& context() { return context_; }
  const UNet& unet() const { return unet_; }
  int64_t side() const { return side_; }
  const UNet::Text& text() const { return keysValues_; }
  const UNet::Time& time() const { return time_; }
  const UNet::Time& current() const { return current_; }

  /// The evaluation that selectTime() has put into current(), of latents [2, side, side, 4] → float32 NCHW;
  /// `alike`: see EncodeOptions.
  void predict(const Tensor& latents, const Tensor& out, int64_t alike) {
    UNet::Joined joined;
    joined.alike = alike;
    context_.backend.modelOutput(unet_.forward(context_, latents, current_, 0, keysValues_, nullptr, joined),
                                 out);
  }
  /// One evaluation of row `row` on latents of both branches → NCHW.
  std::vector<float> evaluate(int64_t row) {
    Arena::Scope scope(arena_);
    const Tensor y = unet_.forward(context_, uploadImage(context_, inputs_.sample.data(), 2, 4, side_, side_),
                                   time_, row, keysValues_);
    std::vector<float> out(inputs_.sample.size());
    context_.backend.downloadImage(y, out.data());
    return out;
  }

 private:
  ModelInputs inputs_;
  int64_t side_;
  Arena arena_;
  Context context_;
  UNet unet_;
  Tensor text_;
  UNet::Text keysValues_;
  UNet::Time time_, current_;
};

/// ‖a − b‖ / ‖b‖; infinite where something is not finite.
inline double relativeError(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < b.size(); i++) {
    difference += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    size += static_cast<double>(b[i]) * b[i];
  }
  const double error = std::sqrt(difference / size);
  return std::isfinite(error) ? error : INFINITY;
}

}  // namespace nd::bench
