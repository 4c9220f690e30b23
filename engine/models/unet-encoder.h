// The first half of UNet2DConditionModel: time, conv_in, the way down and the middle. The UNet adds the way
// up to it, a ControlNet the convolutions that lead to a UNet.
//
// What does not change between steps is made once: keys and values of the text (prepareText), time embeddings
// and their projections for all rows of the plan (prepareTime).
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/models/added-kv.h"
#include "engine/models/blocks.h"

namespace nd {

/// Levels count from the largest map to the smallest. lib/models/unet.ts fills it from config.json.
struct UNetConfig {
  struct Level {
    int64_t channels;
    int resnets;            // layers_per_block; the up path has one more
    int heads;              // attention heads; 0 where the down block has no attention
    int transformerLayers;  // blocks per SpatialTransformer, down path
    int upHeads;            // the same for the up block of this level
    int upTransformerLayers;
    int64_t contextWidth;
    bool onlyCross = false, upOnlyCross = false;  // only_cross_attention of the down and of the up block
  };
  int64_t inChannels = 4, outChannels = 4;
  std::vector<Level> levels;
  int midResnets = 2;        // 0: no middle block
  bool midAttention = true;  // after the middle's first resnet
  int midHeads = 8, midTransformerLayers = 1;
  float normEps = 1e-5f;
  int normGroups = 32;
  int convInKernel = 3, convOutKernel = 3, downsamplePadding = 1;
  bool flipSinToCos = true;
  double freqShift = 0;
  int64_t timeCondWidth = 0;    // time_cond_proj_dim: guidance embedding of distilled models; 0: none
  int64_t addedTimeWidth = 0;   // addition_time_embed_dim of SDXL's text_time embedding; 0: none
  int64_t addedInputWidth = 0;  // projection_class_embeddings_input_dim
  Activation activation = Activation::Silu;      // Silu or Gelu
  int64_t timeWidth = 0;                         // of the time embedding; 0: 4 · channels₀
  Activation timeActivation = Activation::None;  // time_embedding_act_fn: of the embedding, for all blocks
  bool skipTimeActivation = false;               // blocks take the embedding without an activation of theirs
  bool scaleShift = false;                       // see ResnetOptions
  float outputScale = 1, midOutputScale = 1;     // the same, in the middle block
  bool classTimestep = false;  // class_embed_type "timestep": a noise level beside the timestep
  int64_t classEmbeds = 0;     // num_class_embeds: the same, a whole number below it; 0: none
  int64_t encoderWidth = 0;    // encoder_hid_dim: the text is projected from this width; 0: taken as it is
  int textPoolHeads = 0;       // addition_embed_type "text": the text as one vector, too; 0: none
  /// DeepFloyd IF's blocks: AddedKvAttention instead of transformers, residual blocks that change the size.
  bool addedKv = false;
  bool normText = false, textOnly = false, midTextOnly = false;  // see AddedKvAttention::Options
  bool takesNoiseLevel() const { return classTimestep || classEmbeds > 0; }
  int64_t embeddingWidth() const { return timeWidth ? timeWidth : 4 * levels[0].channels; }
};

/// The extra conditions of SDXL and of guidance-distilled models, float32 on the host, one row per batch
/// entry.
struct AddedConditions {
  std::vector<float> textEmbeds;  // [B, pooled width]
  std::vector<float> timeIds;     // [B, ids]
  std::vector<float> timeCond;    // [B, timeCondWidth]
  std::vector<float> noiseLevel;  // [B]: where classTimestep or classEmbeds
  Tensor pooledText;              // [B, embedding width]: poolText()
};

/// What a T2I-Adapter adds on the way down: maps [n, H, W, C], one per down block that they are for (and, in
/// SDXL, the middle); entry b of the batch takes map b mod n.
struct AdapterMaps {
  std::vector<Tensor> maps;
  float scale = 1;
};

class UNetEncoder {
 public:
  /// For every transformer block what it reads; in the order down, middle, up.
  using Text = std::vector<Attended>;
  /// Of these blocks, in that order, `entries` of the batch are perturbed (see Attended).
  static void perturb(Text&, std::span<const int32_t> blocks, const Attended::Entries& entries);
  Text prepareText(Context&, const Tensor& text) const;  // text [B, L, textWidth()]
  /// text [B, L, textWidth()] → [B, L, contextWidth].
  Tensor projectText(Context&, const Tensor& text) const;
  /// Width of the text that it takes.
  int64_t textWidth() const {
    return config_.encoderWidth ? config_.encoderWidth : config_.levels[0].contextWidth;
  }
  bool poolsText() const { return textPooling_.has_value(); }
  Tensor poolText(Context& context, const Tensor& text) const { return (*textPooling_)(context, text); }

  /// Time embeddings of `rows` evaluations: row r, batch entry b has timesteps[r · perRow + b].
  struct Time {
    Tensor embedding;    // [rows · perRow, embedding width], before the activation
    Tensor projections;  // [rows · perRow, Σ columns of the residual blocks]
    int64_t perRow;      // 1 where the batch shares it, else B
  };
  Time prepareTime(Context&, std::span<const float> timesteps, int64_t perRow,
                   const AddedConditions& = {}) const;
  /// Copies evaluation `row` of `all` into `one`, made by oneTime(), which is then evaluation 0: where every
  /// evaluation finds its time at the same address, they can be replayed.
  Time oneTime(Context&, const Time& all) const;
  void selectTime(Context&, const Time& all, int64_t row, const Time& one) const;

  /// Called with the output of conv_in, time_embedding, down0…, mid, up0…
  using Probe = std::function<void(const std::string& name, const Tensor& value)>;
  const UNetConfig& config() const { return config_; }

 protected:
  struct Stage {  // a resnet and, where the level has attention, the transformer or attention after it
    ResnetBlock resnet;
    std::optional<SpatialTransformer> transformer;
    std::optional<AddedKvAttention> attention;
    int64_t timeColumn;  // where its projection begins
    int textIndex;       // its first entry of Text
  };
  struct Block {
    std::vector<Stage> stages;
    std::optional<Conv2d> resample;  // down: stride 2; up: after nearest resizing
    std::optional<Stage> resampler;  // instead of it, where addedKv
  };

  /// conv_in, the way down and the middle. What is derived then adds its own and calls finish().
  UNetEncoder(const UNetConfig& config, const WeightLoader& loader);
  Stage makeResnet(const WeightLoader&, int64_t in, int64_t out, float outputScale,
                   ResnetOptions::Resample = ResnetOptions::Resample::None);
  Stage makeStage(const WeightLoader&, int64_t i, int64_t in, int64_t out, int heads, int layers,
                  int64_t contextWidth, bool onlyCross = false, bool middle = false);
  /// Lays out the time projections of all stages, side by side.
  void finish(const WeightLoader&);
  static void addKeysValues(Context&, const Tensor& text, const std::vector<Stage>&, Text& out);

  /// For `alike` see EncodeOptions.
  Tensor run(Context&, const Stage&, const Tensor& x, const Tensor* skip, const Time&, int64_t row,
             const Text&, int64_t alike = 1) const;

  /// What the way up begins with.
  struct Encoded {
    std::vector<Tensor> skips;  // conv_in's output, then every stage's and downsampler's
    Tensor mid;                 // the last skip itself where there is no middle
  };
  struct EncodeOptions {
    const Tensor* hint = nullptr;  // like conv_in's output, added to it
    std::span<const AdapterMaps> adapters;
    const Probe* probe = nullptr;
    /// The batch is so many times the same x, hint and time, as guidance's branches are, and only the text
    /// tells them apart: what comes before it is then computed once.
    int64_t alike = 1;
  };
  /// x [B, H, W, inChannels].
  Encoded encode(Context&, const Tensor& x, const Time&, int64_t row, const Text&,
                 const EncodeOptions&) const;

  UNetConfig config_;
  std::vector<int64_t> skipChannels_;  // of every skip

 private:
  /// Copies of the batch that conv_in and the first stage need not tell apart.
  int64_t alikeAtFirst(const Text&, const Time&, int64_t alike) const;

  Conv2d convIn_;
  Linear time1_, time2_, added1_, added2_, timeCond_, class1_, class2_, encoderProjection_, timeProjection_;
  WeightPtr classTable_;
  std::optional<TextPooling> textPooling_;
  std::vector<Block> down_;
  std::vector<Stage> mid_;
  // Filled by makeStage in the order of construction.
  std::vector<TensorRef> timeWeights_, timeBiases_;
  int64_t timeColumns_ = 0;
  int textCount_ = 0;
};

/// Sinusoidal embedding (DDPM, section 3.3; diffusers get_timestep_embedding): [values.size(), width], in
/// float32 throughout, because torch rounds the same way.
std::vector<float> sinusoid(std::span<const float> values, int64_t width, bool flipSinToCos,
                            double freqShift);

}  // namespace nd
