#include "engine/picture-input.h"

#include <algorithm>
#include <cmath>

namespace nd {

namespace {

/// Latent side of the encoder's posterior: mean, then log variance, [2C, h, w].
using Moments = std::vector<float>;

/// RGB → [3, H, W] in −1..1, diffusers' VaeImageProcessor.
std::vector<float> normalized(const Picture& picture) {
  const auto pixels = static_cast<size_t>(picture.width * picture.height);
  std::vector<float> out(pixels * 3);
  for (size_t i = 0; i < pixels; i++)
    for (size_t c = 0; c < 3; c++)
      out[c * pixels + i] = 2 * (static_cast<float>(picture.rgb[i * 3 + c]) / 255) - 1;
  return out;
}

/// RGB → [H, W] of 0 and 1: PIL's luma (ITU-R 601 in 16 bits), cut at one half.
std::vector<float> binary(const Picture& mask) {
  std::vector<float> out(static_cast<size_t>(mask.width * mask.height));
  for (size_t i = 0; i < out.size(); i++) {
    const uint8_t* p = mask.rgb.data() + i * 3;
    const int luma = (p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16;
    out[i] = luma >= 128 ? 1 : 0;  // 127 / 255 < 0.5 < 128 / 255
  }
  return out;
}

/// One picture at a time, to bound memory.
std::vector<Moments> encodeAll(Context& context, const Autoencoder& vae,
                               const std::vector<std::vector<float>>& pictures, int64_t height,
                               int64_t width) {
  std::vector<Moments> all;
  const WideRange range(context.backend, vae.wideRange);
  for (const std::vector<float>& picture : pictures) {
    Arena::Scope scope(context.arena);
    const Tensor y = vae.encode(context, uploadImage(context, picture.data(), 1, 3, height, width));
    Moments m(static_cast<size_t>(y.shape.count()));
    context.backend.downloadImage(y, m.data());
    all.push_back(std::move(m));
  }
  return all;
}

void expectRgb(const Autoencoder& vae) {
  if (vae.inChannels() != 3)
    throw Error(ErrorCode::Unsupported,
                format("Expected a VAE for RGB pictures but this one has %lld channels",
                       static_cast<long long>(vae.inChannels())));
}

/// One call's way from pictures to latents.
class Preparation {
 public:
  Preparation(Context& context, const Autoencoder& vae, const LatentScaling& scaling, const PictureInput& in,
              const PictureTarget& target, BatchNoise& noise)
      : context_(context), vae_(vae), scaling_(scaling), in_(in), target_(target), noise_(noise) {
    plane_ = static_cast<size_t>(target.height * target.width);
    each_ = plane_ * static_cast<size_t>(vae.latentChannels());
    std::vector<Picture> pictures = in.pictures, masks = in.masks;
    if (in.task == PictureTask::Inpaint)
      overlays_ = prepareRepaint(in.repaint, pictures, masks, width(), height());
    const ResizeMode mode = in.repaint.region ? ResizeMode::Fill : in.resize;
    for (Picture& p : pictures) p = resizePicture(p, width(), height(), mode);
    for (Picture& m : masks) m = resizePicture(m, width(), height(), mode);
    for (const Picture& p : pictures) pictures_.push_back(normalized(p));
    for (const Picture& m : masks) masks_.push_back(binary(m));
    if (in.repaint.content == MaskedContent::Original) return;
    for (size_t i = 0; i < std::max(pictures.size(), masks.size()); i++)
      filled_.push_back(normalized(filledUnderMask(pictures[i % pictures.size()], masks[i % masks.size()])));
  }

  PreparedPicture img2img() {
    PreparedPicture out;
    std::vector<float> clean = in_.latents;
    if (clean.empty()) {
      // Generators of their own for the images: each samples the posterior for its own.
      const int64_t draws = noise_.count() > 1 ? target_.batch : static_cast<int64_t>(pictures_.size());
      clean = sampled(encodedAll(pictures_), draws);
    }
    clean = tiled(clean, each_);
    startFrom(out, clean);
    return out;
  }

  PreparedPicture inpaint() {
    PreparedPicture out;
    out.overlays = std::move(overlays_);
    const bool sees = target_.extraChannels > 0;
    std::vector<float> mask;
    for (const std::vector<float>& m : masks_) {
      const std::vector<float> small = shrunk(m);
      mask.insert(mask.end(), small.begin(), small.end());
    }
    mask = tiled(mask, plane_);
    const std::vector<std::vector<float>>& begun = filled_.empty() ? pictures_ : filled_;
    std::vector<float> clean;
    if (!sees || in_.start == PictureStart::Clean ||
        (in_.start == PictureStart::Noised && target_.latents.empty()))
      clean = tiled(sampled(encodedAll(begun), static_cast<int64_t>(begun.size())), each_);
    if (in_.start == PictureStart::Clean) {
      out.noise = drawn();
      out.start = clean;
    } else if (!target_.latents.empty() || in_.start == PictureStart::PureNoise) {
      out.noise = target_.latents.empty() ? drawn() : given();
    } else {
      startFrom(out, clean, mask);
    }

    // The picture without what is repainted is sampled, too, after the noise; 4 channels only draw for it.
    const size_t count = std::max(pictures_.size(), masks_.size());
    if (!sees) {
      std::vector<float> skipped(count * each_);
      if (vae_.posterior())
        noise_.draw(skipped.data(), static_cast<int64_t>(count), static_cast<int64_t>(each_));
      out.original = std::move(clean);
      out.mask = std::move(mask);
      return out;
    }
    std::vector<std::vector<float>> kept;
    for (size_t i = 0; i < count; i++) kept.push_back(masked(i));
    const std::vector<float> seen = tiled(sampled(encodedAll(kept), static_cast<int64_t>(count)), each_);
    for (int k = 0; k < target_.branches; k++)
      for (size_t b = 0; b < batch(); b++) {
        append(out.extra, mask, b, plane_);
        append(out.extra, seen, b, each_);
      }
    return out;
  }

  /// Brooks et al. 2023: the branches see no picture, the picture, the picture (and the text); the
  /// posterior's mean without the scaling factor.
  PreparedPicture edit() {
    PreparedPicture out;
    std::vector<float> means;
    for (const Moments& m : encodedAll(pictures_))
      means.insert(means.end(), m.begin(), m.begin() + static_cast<ptrdiff_t>(each_));
    means = tiled(means, each_);
    out.noise = target_.latents.empty() ? drawn() : given();
    for (int k = 0; k < target_.branches; k++) {
      if (target_.branches > 1 && k == 0)
        out.extra.resize(means.size());
      else
        out.extra.insert(out.extra.end(), means.begin(), means.end());
    }
    return out;
  }

 private:
  int64_t width() const { return target_.width * vae_.factor(); }
  int64_t height() const { return target_.height * vae_.factor(); }
  size_t batch() const { return static_cast<size_t>(target_.batch); }

  static void append(std::vector<float>& to, const std::vector<float>& from, size_t index, size_t each) {
    const auto begin = from.begin() + static_cast<ptrdiff_t>(index * each);
    to.insert(to.end(), begin, begin + static_cast<ptrdiff_t>(each));
  }
  /// Image b takes entry b mod n.
  std::vector<float> tiled(const std::vector<float>& x, size_t each) const {
    std::vector<float> out;
    for (size_t b = 0; b < batch(); b++) append(out, x, b % (x.size() / each), each);
    return out;
  }
  std::vector<float> drawn() {
    std::vector<float> out(batch() * each_);
    if (target_.variation)
      drawVaried(noise_, *target_.variation,
                 {target_.batch, vae_.latentChannels(), target_.height, target_.width}, out.data());
    else
      noise_.draw(out.data(), target_.batch, static_cast<int64_t>(each_));
    return out;
  }
  std::vector<float> given() const { return {target_.latents.begin(), target_.latents.end()}; }

  std::vector<Moments> encodedAll(const std::vector<std::vector<float>>& pictures) {
    return encodeAll(context_, vae_, pictures, height(), width());
  }

  /// `count` samples of the posteriors (number i of moments i mod n), as latents: scaled. diffusers'
  /// DiagonalGaussianDistribution.
  std::vector<float> sampled(const std::vector<Moments>& moments, int64_t count) {
    std::vector<float> out(static_cast<size_t>(count) * each_);
    if (!vae_.posterior()) {  // nothing to sample, nothing to draw
      for (size_t i = 0; i < out.size(); i++)
        out[i] = static_cast<float>(
            scaling_.latent(moments[i / each_ % moments.size()][i % each_], i % each_ / plane_));
      return out;
    }
    noise_.draw(out.data(), count, static_cast<int64_t>(each_));
    for (size_t i = 0; i < out.size(); i++) {
      const Moments& m = moments[i / each_ % moments.size()];
      const size_t at = i % each_;
      const float deviation = std::exp(0.5f * std::clamp(m[each_ + at], -30.0f, 20.0f));
      out[i] = static_cast<float>(scaling_.latent(m[at] + deviation * out[i], at / plane_));
    }
    return out;
  }

  /// `mask` [B, 1, h, w] where the masked content is not the picture's.
  void startFrom(PreparedPicture& out, std::vector<float> clean, const std::vector<float>& mask = {}) {
    if (in_.start == PictureStart::Clean) {
      out.start = clean;
      out.noise.resize(clean.size());  // no scheduler reads it where nothing was noised
      return;
    }
    out.noise = drawn();
    const MaskedContent content = in_.repaint.content;
    if (content == MaskedContent::LatentNoise || content == MaskedContent::LatentNothing)
      for (size_t i = 0; i < clean.size(); i++)
        if (mask[i / each_ * plane_ + i % plane_] > 0)
          clean[i] = content == MaskedContent::LatentNoise ? out.noise[i] : 0;
    out.start.resize(clean.size());
    for (size_t i = 0; i < clean.size(); i++)
      out.start[i] = static_cast<float>(in_.alpha * clean[i] + in_.sigma * out.noise[i]);
  }

  /// The picture, grey (0) where mask i repaints.
  std::vector<float> masked(size_t i) const {
    std::vector<float> out = pictures_[i % pictures_.size()];
    const std::vector<float>& mask = masks_[i % masks_.size()];
    for (size_t k = 0; k < out.size(); k++)
      if (mask[k % mask.size()] >= 0.5f) out[k] = 0;
    return out;
  }
  /// [H, W] → [h, w], nearest neighbour: the first pixel of each square.
  std::vector<float> shrunk(const std::vector<float>& mask) const {
    std::vector<float> out;
    const int64_t f = vae_.factor();
    for (int64_t y = 0; y < target_.height; y++)
      for (int64_t x = 0; x < target_.width; x++)
        out.push_back(mask[static_cast<size_t>(y * f * width() + x * f)]);
    return out;
  }

  Context& context_;
  const Autoencoder& vae_;
  const LatentScaling& scaling_;
  const PictureInput& in_;
  const PictureTarget& target_;
  BatchNoise& noise_;
  size_t plane_, each_;  // values of a latent channel, and of an image's latents
  std::vector<std::vector<float>> pictures_, masks_;
  std::vector<std::vector<float>> filled_;  // what the latents are of, where that is not the pictures
  std::vector<Overlay> overlays_;
};

void check(const PictureInput& in, const PictureTarget& t, const Autoencoder& vae) {
  const auto each = static_cast<size_t>(vae.latentChannels() * t.height * t.width);
  const auto divides = [&](size_t n) { return n > 0 && static_cast<size_t>(t.batch) % n == 0; };
  expectRgb(vae);
  expect(in.latents.empty() ? divides(in.pictures.size())
                            : in.latents.size() % each == 0 && divides(in.latents.size() / each),
         "pictures: a number that divides the batch");
  expect((in.task == PictureTask::Inpaint) == !in.masks.empty(), "masks for inpainting alone");
  expect(in.masks.empty() || (divides(in.masks.size()) && !in.pictures.empty()), "masks: divide the batch");
  expect(in.latents.empty() || in.task == PictureTask::Img2Img, "latents for img2img alone");
  if (!t.latents.empty() && t.latents.size() != each * static_cast<size_t>(t.batch))
    throw Error(ErrorCode::InvalidArgument, "Expected latents of the batch's shape");
  const int64_t channels = vae.latentChannels();
  const int64_t extra = in.task == PictureTask::Edit                         ? channels
                        : in.task == PictureTask::Inpaint && t.extraChannels ? channels + 1
                                                                             : 0;
  expect(t.extraChannels == extra, "a UNet with the task's input channels");
}

}  // namespace

std::vector<std::vector<float>> encodePictures(Context& context, const Autoencoder& vae,
                                               const std::vector<Picture>& pictures, int64_t latentHeight,
                                               int64_t latentWidth) {
  expectRgb(vae);
  const int64_t height = latentHeight * vae.factor(), width = latentWidth * vae.factor();
  std::vector<std::vector<float>> inputs;
  inputs.reserve(pictures.size());
  for (const Picture& p : pictures) inputs.push_back(normalized(resizeLanczos(p, width, height)));
  return encodeAll(context, vae, inputs, height, width);
}

PreparedPicture preparePicture(Context& context, const Autoencoder& vae, const LatentScaling& scaling,
                               const PictureInput& in, const PictureTarget& target, BatchNoise& noise) {
  check(in, target, vae);
  Preparation preparation(context, vae, scaling, in, target, noise);
  switch (in.task) {
    case PictureTask::Img2Img:
      return preparation.img2img();
    case PictureTask::Inpaint:
      return preparation.inpaint();
    default:
      return preparation.edit();
  }
}

}  // namespace nd
