#include "engine/control.h"

namespace nd {

namespace {

/// [3, H, W] in 0..1.
std::vector<float> planes(const Picture& picture, int64_t channels, bool bgr) {
  const auto pixels = static_cast<size_t>(picture.width * picture.height);
  std::vector<float> out(pixels * static_cast<size_t>(channels));
  for (size_t i = 0; i < pixels; i++)
    for (size_t c = 0; c < static_cast<size_t>(channels); c++)
      out[c * pixels + i] = static_cast<float>(picture.rgb[i * 3 + (bgr ? 2 - c : c)]) / 255;
  return out;
}

/// PIL's convert("L"): ITU-R 601 in 16 bits, in all three channels.
Picture grey(Picture picture) {
  for (size_t i = 0; i + 2 < picture.rgb.size(); i += 3) {
    uint8_t* p = picture.rgb.data() + i;
    p[0] = p[1] = p[2] = static_cast<uint8_t>((p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16);
  }
  return picture;
}

/// One of x per entry of `order`, which are [1, H, W, C] each.
Tensor stacked(Context& context, const std::vector<Tensor>& x, std::span<const int32_t> order) {
  if (x.size() == 1 && order.size() == 1) return x[0];
  Shape shape = x[0].shape;
  shape.dim[0] = static_cast<int64_t>(order.size());
  const Tensor y = context.arena.tensor(shape);
  for (size_t b = 0; b < order.size(); b++)
    context.backend.copyColumns(x[static_cast<size_t>(order[b])],
                                slice(context, y, static_cast<int64_t>(b), 1), 0);
  return y;
}

/// The last `count` of `total` rows.
std::vector<float> lastRows(const std::vector<float>& all, int64_t total, int64_t count) {
  const auto each = static_cast<ptrdiff_t>(static_cast<int64_t>(all.size()) / total);
  return {all.end() - each * count, all.end()};
}

template <class Map>
const auto& loaded(const Map& models, int64_t id, const char* what) {
  const auto found = models.find(id);
  if (found == models.end())
    throw Error(ErrorCode::InvalidArgument,
                format("Expected a loaded %s but it was unloaded before its turn", what));
  return *found->second;
}

}  // namespace

void addResidual(Context& context, const Tensor& y, const Tensor& residual, float scale) {
  if (residual.shape == y.shape) {
    add(context, y, residual, scale, &y);
    return;
  }
  if (residual.shape.rank != 4 || residual.shape[0] != y.shape[0] || residual.shape[1] != 1 ||
      residual.shape[2] != 1 || residual.shape[3] != y.shape[3])
    throw Error(
        ErrorCode::InvalidArgument,
        format("Expected a residual like the UNet's map %s (batch, height, width, channels), or of one "
               "pixel, but received %s",
               y.shape.text().c_str(), residual.shape.text().c_str()));
  for (int64_t b = 0; b < y.shape[0]; b++) {
    const Tensor part = slice(context, y, b, 1);
    Tensor pixel = slice(context, residual, b, 1);
    pixel.shape = part.shape;
    pixel.stride = 0;  // every row is the same
    add(context, part, pixel, scale, &part);
  }
}

std::vector<float> controlPicture(const Picture& picture, int64_t height, int64_t width, bool bgr,
                                  const Picture* mask) {
  std::vector<float> out = planes(resizeLanczos(picture, width, height), 3, bgr);
  if (!mask) return out;
  const Picture masked = grey(resizeLanczos(*mask, width, height));
  const size_t pixels = out.size() / 3;
  for (size_t i = 0; i < out.size(); i++)
    if (masked.rgb[i % pixels * 3] > 127) out[i] = -1;
  return out;
}

std::vector<float> adapterTiles(const Picture& picture, int64_t height, int64_t width, int64_t channels,
                                int64_t factor) {
  const std::vector<float> whole =
      planes(resizeLanczos(channels == 1 ? grey(picture) : picture, width, height), channels, false);
  std::vector<float> out;
  out.reserve(whole.size());
  for (int64_t c = 0; c < channels; c++)
    for (int64_t dy = 0; dy < factor; dy++)
      for (int64_t dx = 0; dx < factor; dx++)
        for (int64_t y = dy; y < height; y += factor)
          for (int64_t x = dx; x < width; x += factor)
            out.push_back(whole[static_cast<size_t>((c * height + y) * width + x)]);
  return out;
}

Controls::Controls(Context& context, const ControlModels& models, std::span<const ControlInput> inputs,
                   const ControlTarget& t)
    : batch_(t.batch), branches_(t.branches), prompted_(t.prompted), guess_(t.guess) {
  // What the nets see: all branches, or the last ones.
  const int64_t whole = t.branches * t.batch, seen = t.guess ? t.prompted * t.batch : whole;
  AddedConditions added{t.added.textEmbeds, t.added.timeIds, {}};
  int64_t perRow = t.perRow;
  std::vector<float> timesteps(t.timesteps.begin(), t.timesteps.end());
  if (perRow > 1 && seen < whole) {
    const int64_t rows = static_cast<int64_t>(timesteps.size()) / perRow;
    timesteps.clear();
    for (int64_t r = 0; r < rows; r++)
      timesteps.insert(timesteps.end(), static_cast<size_t>(seen),
                       t.timesteps[static_cast<size_t>(r * perRow)]);
    if (!added.textEmbeds.empty()) {
      added.textEmbeds = lastRows(added.textEmbeds, perRow, seen);
      added.timeIds = lastRows(added.timeIds, perRow, seen);
    }
    perRow = seen;
  }
  for (size_t i = 0; i < inputs.size(); i++) {
    const ControlInput& in = inputs[i];
    expect(!in.pictures.empty() && static_cast<int64_t>(in.pictureOf.size()) == t.batch,
           "a picture for every image");
    expect(in.masks.empty() || in.masks.size() == in.pictures.size(), "a mask for every picture");
    /// With a region, it alone at the output's size: diffusers' crops_coords.
    const auto shown = [&](const Picture& p) {
      return t.region ? resizePicture(cropped(p, *t.region), t.width, t.height, ResizeMode::Fill) : p;
    };
    if (in.adapter) {
      const T2iAdapter& adapter = loaded(models.adapters, in.id, "T2I-Adapter");
      const auto& c = adapter.config();
      const int64_t f = c.downscaleFactor;
      std::vector<std::vector<Tensor>> each;  // of every picture
      for (const Picture& p : in.pictures)
        each.push_back(adapter(
            context, uploadImage(context, adapterTiles(shown(p), t.height, t.width, c.inChannels, f).data(),
                                 1, c.inChannels * f * f, t.height / f, t.width / f)));
      Adapter a{i, each[0]};
      for (size_t level = 0; each.size() > 1 && level < a.maps.size(); level++) {
        std::vector<Tensor> maps;
        maps.reserve(each.size());
        for (const std::vector<Tensor>& one : each) maps.push_back(one[level]);
        a.maps[level] = stacked(context, maps, in.pictureOf);
      }
      adapters_.push_back(std::move(a));
      continue;
    }
    const ControlNet& net = loaded(models.nets, in.id, "ControlNet");
    std::vector<int32_t> order;
    for (int64_t b = 0; b < seen; b++) order.push_back(in.pictureOf[static_cast<size_t>(b % t.batch)]);
    std::vector<Tensor> hints;
    for (size_t p = 0; p < in.pictures.size(); p++) {
      std::optional<Picture> mask;
      if (!in.masks.empty()) mask = shown(in.masks[p]);
      const std::vector<float> picture =
          controlPicture(shown(in.pictures[p]), t.height, t.width, net.config().bgr, mask ? &*mask : nullptr);
      hints.push_back(net.hint(
          context, uploadImage(context, picture.data(), 1, net.config().pictureChannels, t.height, t.width)));
    }
    Net n{&net, i, stacked(context, hints, order), {}, {}, {}};
    n.text = net.prepareText(context, slice(context, t.text, whole - seen, seen));
    n.time = net.prepareTime(context, timesteps, perRow, added);
    n.current = net.oneTime(context, n.time);
    nets_.push_back(std::move(n));
  }
}

void Controls::select(Context& context, int64_t row) const {
  for (const Net& n : nets_) n.net->selectTime(context, n.time, row, n.current);
}

UNet::Joined Controls::joined(Context& context, const Tensor& latents, std::span<const double> scales) {
  UNet::Joined out;
  scaled_.clear();
  for (const Adapter& a : adapters_)
    if (scales[a.input] != 0) scaled_.push_back({a.maps, static_cast<float>(scales[a.input])});
  out.adapters = scaled_;
  bool active = false;
  for (const Net& n : nets_) active = active || scales[n.input] != 0;
  if (active)
    out.control = [this, &context, latents, scales](std::span<const Tensor> skips, const Tensor& mid) {
      addNets(context, latents, scales, skips, mid);
    };
  return out;
}

void Controls::addNets(Context& context, const Tensor& latents, std::span<const double> scales,
                       std::span<const Tensor> skips, const Tensor& mid) const {
  const auto seen = [&](const Tensor& all) {
    return guess_ ? slice(context, all, (branches_ - prompted_) * batch_, prompted_ * batch_) : all;
  };
  for (const Net& n : nets_) {
    const double scale = scales[n.input];
    if (scale == 0) continue;
    const bool graded = guess_ && !n.net->config().globalPool;
    n.net->forward(
        context, seen(latents), n.hint, n.current, 0, n.text,
        [&](size_t i, const Tensor& residual) {
          const double each = graded ? scale * guessScale(i, n.net->count()) : scale;
          addResidual(context, seen(i < skips.size() ? skips[i] : mid), residual, static_cast<float>(each));
        },
        guess_ ? prompted_ : branches_);
  }
}

}  // namespace nd
