// One job, from token ids (and pictures) to pixels: text → noise or noised picture → step loop → autoencoder.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/conditioning.h"
#include "engine/control.h"
#include "engine/denoise.h"
#include "engine/image-prompts.h"
#include "engine/models/clip-vision.h"
#include "engine/models/tiled-autoencoder.h"
#include "engine/models/unet.h"
#include "engine/models/unet2d.h"
#include "engine/picture-input.h"
#include "engine/upscale-input.h"

namespace nd {

/// The loaded networks of a pipeline.
struct Models {
  std::vector<std::unique_ptr<TextEncoder>> textEncoders;
  std::unique_ptr<UNet> unet;
  std::unique_ptr<Autoencoder> vae;  // null where the UNet paints pixels
  LatentScaling scaling;
  std::unique_ptr<ClipVision> imageEncoder;  // IP-Adapter, CLIP scores
  std::vector<std::unique_ptr<IpAdapter>> ipAdapters;
  std::unique_ptr<Autoencoder> previewVae;  // decodes previews instead of `vae`, where there is one
  LatentScaling previewScaling;
  std::unique_ptr<UNet2d> unconditional;  // instead of all others
  ControlModels controls;
};

struct GenerateJob {
  PromptInput prompt;  // rows: branch-major unique prompts [branches · prompts]
  int branches = 1;    // 2: without text (or with the negative prompt) first, then with it
  /// Perturbed-attention guidance: transformer blocks, as UNet::Text counts them, of which the branch before
  /// the last, which then has the prompt too, attends to itself.
  std::vector<int32_t> perturbed;
  /// The last branches, those with the prompt.
  int prompted() const { return perturbed.empty() ? 1 : 2; }
  int64_t prompts = 1, imagesPerPrompt = 1;
  int64_t latentHeight = 64, latentWidth = 64;
  std::vector<float> timeIds;             // [branches × images, ids], SDXL; else empty
  std::vector<float> timeCond;            // [timeCondWidth], guidance-distilled models; else empty
  std::vector<ImagePrompt> imagePrompts;  // one per IP-Adapter
  StepPlan plan;
  double guidanceRescale = 0;
  std::vector<uint64_t> seeds;  // one, continued over the images, or one per image
  NoiseKind noise = NoiseKind::Cpu;
  std::vector<float> latents;           // [B, C, h, w] before scaling by initNoiseSigma; empty: drawn
  std::optional<PictureInput> picture;  // img2img, inpainting, editing
  std::optional<UpscaleInput> upscale;  // super-resolution
  std::vector<ControlInput> controls;   // ControlNets and T2I-Adapters, as the rows' controlScales count them
  bool guess = false;                   // ControlNets see the branches with the prompt alone
  Variation variation;                  // of the initial noise
  std::optional<FreeU> freeU;
  bool tileX = false, tileY = false;  // every convolution of UNet and autoencoder goes round
  bool decode = true;                 // else only latents come back
  bool stepLatents = false;           // events carry latents, predicted noise and predicted original
  int previewEvery = 0;               // decode the predicted original every so many steps; 0: never
  bool fullPreview = false;           // by `vae` itself, also where there is a preview's
  std::optional<VaeTiling> tiling;    // pictures are encoded and decoded tile by tile
  bool attentionMaps = false;         // record the cross-attention of the branch with the prompt
};

/// After every UNet evaluation, as diffusers' callback; `step` counts only the rows that count for progress.
struct GenerateEvent {
  size_t row;
  int step, steps;
  double timestep;
  std::vector<float> latents, predictedNoise, predictedOriginal;  // [B, C, h, w], where asked for
  std::vector<uint8_t> preview;                                   // [B, H, W, 3], where asked for
};

struct Timings {  // seconds
  double text = 0, encode = 0, denoise = 0, decode = 0;
};

struct GenerateResult {
  Shape latentShape;  // [B, C, h, w]
  std::vector<float> latents;
  int64_t height = 0, width = 0;
  std::vector<uint8_t> pixels;  // [B, H, W, 3]
  bool decodedInTiles = false;  // because memory was short
  Shape attentionShape;         // [B, tokens, h, w], where asked for
  std::vector<float> attention;
  Timings timings;
};

GenerateResult generate(Context&, const Models&, const GenerateJob&,
                        const std::function<void(GenerateEvent&&)>& onStep);

/// What the row of a plan predicts as noise, from x before it and the model's output: [B, C, h, w] on the
/// host.
std::vector<float> predictedNoise(const PlanRow&, std::span<const float> x, std::vector<float> m);

/// latents [B, C, h, w] of the loop → RGB8 [B, h·f, w·f, 3]; one image at a time, to bound memory. Without an
/// autoencoder they are pixels themselves, and f is 1.
/// Where the memory does not suffice, large images are decoded tile by tile, which `inTiles` then tells.
std::vector<uint8_t> decodePixels(Context&, const Autoencoder*, const LatentScaling&,
                                  const std::vector<float>& latents, const Shape& shape,
                                  bool* inTiles = nullptr);
std::vector<uint8_t> decodePixels(Context&, const Models&, const std::vector<float>& latents,
                                  const Shape& shape);

}  // namespace nd
