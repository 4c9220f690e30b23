// Pictures as the step loop's input: img2img, inpainting, InstructPix2Pix. Which random numbers are drawn,
// and in what order, is as in diffusers' StableDiffusion(XL)Img2Img-, Inpaint- and InstructPix2PixPipeline,
// so that a seed means the same picture.
#pragma once

#include <vector>

#include "engine/denoise.h"
#include "engine/models/autoencoder.h"
#include "engine/repaint.h"
#include "engine/resize.h"
#include "engine/variation.h"

namespace nd {

enum class PictureTask : uint8_t { Img2Img, Inpaint, Edit };

/// What the latents are before the first row.
enum class PictureStart : uint8_t {
  Noised,     // α·original + σ·noise
  PureNoise,  // initNoiseSigma·noise
  Clean       // the original: another model has done the first part, or nothing is to be changed
};

struct PictureInput {
  PictureTask task = PictureTask::Img2Img;
  std::vector<Picture> pictures;  // any sizes; image b of the batch takes number b mod n
  std::vector<Picture> masks;     // Inpaint: any sizes, bright where it is repainted; b mod n as well
  std::vector<float> latents;     // Img2Img: [n, C, h, w] instead of pictures
  PictureStart start = PictureStart::Noised;
  double alpha = 1, sigma = 0;  // of the first row's level
  ResizeMode resize = ResizeMode::Stretch;
  RepaintOptions repaint;  // Inpaint
};

/// What the loop and the UNet get of a picture. Host, float32.
struct PreparedPicture {
  std::vector<float> noise;     // n0 [B, C, h, w]
  std::vector<float> start;     // x before the first row [B, C, h, w]; empty: initNoiseSigma · n0
  std::vector<float> original;  // [B, C, h, w]; empty where the UNet sees the picture itself
  std::vector<float> mask;      // [B, 1, h, w]; the same
  std::vector<float> extra;     // [branches·B, E, h, w]: the UNet's channels after the latents; may be empty
  std::vector<Overlay> overlays;  // image b takes number b mod n; may be empty
};

struct PictureTarget {
  int64_t batch = 1, height = 0, width = 0;  // of the latents
  int branches = 1;
  int64_t extraChannels = 0;             // the UNet's input channels beyond the latents'
  std::span<const float> latents;        // given noise [B, C, h, w]; empty: drawn
  const Variation* variation = nullptr;  // of the drawn noise
};

/// The autoencoder's moments of pictures resized to its latents' size times its factor: mean, then log
/// variance, [2C, h, w] each.
std::vector<std::vector<float>> encodePictures(Context&, const Autoencoder&, const std::vector<Picture>&,
                                               int64_t latentHeight, int64_t latentWidth);

PreparedPicture preparePicture(Context&, const Autoencoder&, const LatentScaling&, const PictureInput&,
                               const PictureTarget&, BatchNoise&);

}  // namespace nd
