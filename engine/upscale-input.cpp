#include "engine/upscale-input.h"

namespace nd {

namespace {

/// One plane, as torch's interpolate(mode="bilinear", align_corners=True) in float32.
void enlarge(const float* from, int64_t height, int64_t width, float* to, int64_t outHeight,
             int64_t outWidth) {
  const auto step = [](int64_t in, int64_t out) {
    return out > 1 ? static_cast<float>(in - 1) / static_cast<float>(out - 1) : 0.0f;
  };
  const float down = step(height, outHeight), right = step(width, outWidth);
  for (int64_t y = 0; y < outHeight; y++) {
    const float atY = down * static_cast<float>(y);
    const auto y0 = static_cast<int64_t>(atY), y1 = y0 + (y0 + 1 < height ? 1 : 0);
    const float wy = atY - static_cast<float>(y0);
    for (int64_t x = 0; x < outWidth; x++) {
      const float atX = right * static_cast<float>(x);
      const auto x0 = static_cast<int64_t>(atX), x1 = x0 + (x0 + 1 < width ? 1 : 0);
      const float wx = atX - static_cast<float>(x0);
      to[y * outWidth + x] = (1 - wy) * ((1 - wx) * from[y0 * width + x0] + wx * from[y0 * width + x1]) +
                             wy * ((1 - wx) * from[y1 * width + x0] + wx * from[y1 * width + x1]);
    }
  }
}

/// RGB bytes as [n, 3, h, w] in −1..1, diffusers' VaeImageProcessor.
void readPictures(UpscaleInput& in, int64_t height, int64_t width) {
  in.height = height, in.width = width;
  const auto plane = static_cast<size_t>(height * width);
  in.low.resize(in.pictures.size() * 3 * plane);
  for (size_t n = 0; n < in.pictures.size(); n++) {
    const Picture picture = resizeBicubic(in.pictures[n], width, height);
    for (size_t i = 0; i < plane; i++)
      for (size_t c = 0; c < 3; c++)
        in.low[(n * 3 + c) * plane + i] = 2 * (static_cast<float>(picture.rgb[i * 3 + c]) / 255) - 1;
  }
}

}  // namespace

PreparedPicture prepareUpscale(UpscaleInput in, const PictureTarget& target, int64_t channels,
                               int64_t perPrompt, BatchNoise& noise) {
  if (!in.pictures.empty()) readPictures(in, target.height, target.width);
  if (!in.enlarges && (in.height != target.height || in.width != target.width))
    throw Error(
        ErrorCode::InvalidArgument,
        format("Expected small pictures of %lld × %lld, as large as the latents, but received %lld × %lld",
               static_cast<long long>(target.width), static_cast<long long>(target.height),
               static_cast<long long>(in.width), static_cast<long long>(in.height)));
  const auto plane = static_cast<size_t>(target.height * target.width),
             each = plane * static_cast<size_t>(target.extraChannels);
  const auto small = static_cast<size_t>(in.height * in.width),
             eachSmall = small * static_cast<size_t>(target.extraChannels);
  const auto batch = static_cast<size_t>(target.batch);
  const size_t pictures = eachSmall ? in.low.size() / eachSmall : 0;
  if (pictures == 0 || pictures * eachSmall != in.low.size() ||
      (pictures != 1 && pictures * static_cast<size_t>(perPrompt) != batch))
    throw Error(ErrorCode::InvalidArgument,
                format("Expected one picture, or one per prompt (%lld), but received %zu",
                       static_cast<long long>(target.batch / perPrompt), pictures));
  const size_t draws = in.enlarges ? batch : pictures;  // of the small picture's noise
  std::vector<float> added(draws * each);
  const auto drawAdded = [&] {
    noise.draw(added.data(), static_cast<int64_t>(draws), static_cast<int64_t>(each));
  };
  if (!in.enlarges) drawAdded();
  PreparedPicture out;
  out.noise.assign(target.latents.begin(), target.latents.end());
  if (out.noise.empty()) {
    const int64_t painted = channels * static_cast<int64_t>(plane);
    out.noise.resize(batch * static_cast<size_t>(painted));
    noise.draw(out.noise.data(), target.batch, painted);
  }
  if (in.enlarges) drawAdded();
  std::vector<float> large(each);
  for (size_t b = 0; b < batch; b++) {
    const size_t picture = pictures == 1 ? 0 : b / static_cast<size_t>(perPrompt);
    const float* low = in.low.data() + picture * eachSmall;
    const float* own = added.data() + (in.enlarges ? b : picture) * each;
    for (size_t c = 0; c < static_cast<size_t>(target.extraChannels); c++)
      enlarge(low + c * small, in.height, in.width, large.data() + c * plane, target.height, target.width);
    for (size_t i = 0; i < each; i++)
      out.extra.push_back(static_cast<float>(in.alpha * large[i] + in.sigma * own[i]));
  }
  const std::vector<float> once = out.extra;
  for (int k = 1; k < target.branches; k++) out.extra.insert(out.extra.end(), once.begin(), once.end());
  return out;
}

}  // namespace nd
