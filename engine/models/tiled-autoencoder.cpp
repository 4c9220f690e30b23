#include "engine/models/tiled-autoencoder.h"

#include <algorithm>
#include <functional>

namespace nd {

namespace {

/// One image on the host, channels first.
struct Map {
  int64_t channels = 0, height = 0, width = 0;
  std::vector<float> data;

  Map() = default;
  Map(int64_t c, int64_t h, int64_t w)
      : channels(c), height(h), width(w), data(static_cast<size_t>(c * h * w)) {}
  float* row(int64_t c, int64_t y) { return data.data() + (c * height + y) * width; }
  const float* row(int64_t c, int64_t y) const { return data.data() + (c * height + y) * width; }
};

Map cropped(const Map& m, int64_t top, int64_t left, int64_t size) {
  Map out(m.channels, std::min(size, m.height - top), std::min(size, m.width - left));
  for (int64_t c = 0; c < m.channels; c++)
    for (int64_t y = 0; y < out.height; y++) std::copy_n(m.row(c, top + y) + left, out.width, out.row(c, y));
  return out;
}

void paste(const Map& tile, int64_t limit, int64_t top, int64_t left, Map& out) {
  const int64_t height = std::min({tile.height, limit, out.height - top});
  const int64_t width = std::min({tile.width, limit, out.width - left});
  for (int64_t c = 0; c < tile.channels; c++)
    for (int64_t y = 0; y < height; y++) std::copy_n(tile.row(c, y), width, out.row(c, top + y) + left);
}

/// Sizes in the map that is cut (in) and in the one that is put together (out).
struct Grid {
  int64_t tile, step;    // in
  int64_t blend, limit;  // out: how far tiles are blended, and what a tile contributes
  int64_t outHeight, outWidth;
};

using Run = std::function<Map(const Map&)>;

/// AutoencoderKL's way: every tile fades in over the end of the one above it, then over the one to its left.
Map faded(const Map& whole, const Grid& g, const Run& run) {
  Map out;
  std::vector<Map> above;
  for (int64_t y = 0, row = 0; y < whole.height; y += g.step, row++) {
    std::vector<Map> tiles;
    for (int64_t x = 0, column = 0; x < whole.width; x += g.step, column++) {
      Map tile = run(cropped(whole, y, x, g.tile));
      if (out.data.empty()) out = Map(tile.channels, g.outHeight, g.outWidth);
      if (row > 0) {
        const Map& upper = above[static_cast<size_t>(column)];
        const int64_t extent = std::min({upper.height, tile.height, g.blend});
        for (int64_t c = 0; c < tile.channels; c++)
          for (int64_t i = 0; i < extent; i++) {
            const double share = static_cast<double>(i) / static_cast<double>(extent);
            const auto before = static_cast<float>(1 - share), after = static_cast<float>(share);
            const float* from = upper.row(c, upper.height - extent + i);
            float* to = tile.row(c, i);
            for (int64_t k = 0; k < std::min(tile.width, upper.width); k++)
              to[k] = from[k] * before + to[k] * after;
          }
      }
      if (column > 0) {
        const Map& left = tiles.back();
        const int64_t extent = std::min({left.width, tile.width, g.blend});
        for (int64_t c = 0; c < tile.channels; c++)
          for (int64_t i = 0; i < tile.height; i++) {
            const float* from = left.row(c, i) + left.width - extent;
            float* to = tile.row(c, i);
            for (int64_t k = 0; k < extent; k++) {
              const double share = static_cast<double>(k) / static_cast<double>(extent);
              to[k] = from[k] * static_cast<float>(1 - share) + to[k] * static_cast<float>(share);
            }
          }
      }
      paste(tile, g.limit, row * g.limit, column * g.limit, out);
      tiles.push_back(std::move(tile));
    }
    above = std::move(tiles);
  }
  return out;
}

/// AutoencoderTiny's way: every tile is laid over what is there, through a mask that rises over its upper and
/// left edges.
Map overlaid(const Map& whole, const Grid& g, const Run& run) {
  Map out;
  const int64_t stepOut = g.limit;
  const auto rising = [&](bool first, int64_t i) {
    if (first || g.blend < 2) return 1.0f;
    return std::clamp(static_cast<float>(i) / static_cast<float>(g.blend - 1), 0.0f, 1.0f);
  };
  for (int64_t y = 0, top = 0; y < whole.height; y += g.step, top += stepOut)
    for (int64_t x = 0, left = 0; x < whole.width; x += g.step, left += stepOut) {
      const Map tile = run(cropped(whole, y, x, g.tile));
      if (out.data.empty()) out = Map(tile.channels, g.outHeight, g.outWidth);
      for (int64_t c = 0; c < tile.channels; c++)
        for (int64_t i = 0; i < std::min(tile.height, out.height - top); i++) {
          const float vertical = rising(y == 0, i), *from = tile.row(c, i);
          float* to = out.row(c, top + i) + left;
          for (int64_t k = 0; k < std::min(tile.width, out.width - left); k++) {
            const float mask = vertical * rising(x == 0, k);
            to[k] = mask * from[k] + (1 - mask) * to[k];
          }
        }
    }
  return out;
}

/// `work` on every image of x [B, H, W, C] by itself.
Tensor byTiles(Context& context, const Tensor& x, const Grid& grid, int64_t outChannels, bool fades,
               const std::function<Tensor(const Tensor&)>& work) {
  const int64_t batch = x.shape[0], channels = x.shape[3];
  const auto each = static_cast<size_t>(x.shape.count() / batch);
  std::vector<float> host(each * static_cast<size_t>(batch)), out;
  context.backend.downloadImage(x, host.data());
  const Run run = [&](const Map& tile) {
    Arena::Scope scope(context.arena);
    const Tensor y = work(uploadImage(context, tile.data.data(), 1, tile.channels, tile.height, tile.width));
    Map result(y.shape[3], y.shape[1], y.shape[2]);
    context.backend.downloadImage(y, result.data.data());
    return result;
  };
  for (int64_t b = 0; b < batch; b++) {
    Map whole(channels, x.shape[1], x.shape[2]);
    std::copy_n(host.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(b) * each), each,
                whole.data.begin());
    const Map done = fades ? faded(whole, grid, run) : overlaid(whole, grid, run);
    out.insert(out.end(), done.data.begin(), done.data.end());
  }
  return uploadImage(context, out.data(), batch, outChannels, grid.outHeight, grid.outWidth);
}

}  // namespace

TiledAutoencoder::TiledAutoencoder(const Autoencoder& inner, const VaeTiling& tiling)
    : inner_(inner), tiling_(tiling) {
  wideRange = inner.wideRange;
  const int64_t f = factor();
  if (tiling.tile < 2 * f || tiling.tile % f != 0)
    throw Error(ErrorCode::InvalidArgument,
                format("Expected a multiple of %lld, at least %lld, for the side of a tile but received %lld",
                       static_cast<long long>(f), 2 * static_cast<long long>(f),
                       static_cast<long long>(tiling.tile)));
  if (!(tiling.overlap >= 0 && tiling.overlap < 1))
    throw Error(ErrorCode::InvalidArgument,
                format("Expected an overlap of tiles from 0 to below 1 but received %g", tiling.overlap));
}

namespace {

/// A tile's own edges are no edges of a picture that repeats.
Context untiled(const Context& context) {
  Context apart = context;
  apart.tileX = apart.tileY = false;
  return apart;
}

/// Tiles of `tile` latents and steps between them. diffusers rounds them so, and AutoencoderTiny the other
/// way round.
struct LatentGrid {
  int64_t tile, step;
};
LatentGrid latentGrid(const VaeTiling& t, int64_t factor, bool fades) {
  const int64_t tile = t.tile / factor;
  const auto share = static_cast<double>(tile);
  const int64_t step =
      fades ? static_cast<int64_t>(share * (1 - t.overlap)) : tile - static_cast<int64_t>(share * t.overlap);
  return {tile, std::max<int64_t>(step, 1)};
}

}  // namespace

Tensor TiledAutoencoder::encode(Context& context, const Tensor& x) const {
  const int64_t f = factor(), height = x.shape[1] / f, width = x.shape[2] / f;
  const auto [tile, step] = latentGrid(tiling_, f, posterior());
  if (posterior() && x.shape[1] <= tile * f && x.shape[2] <= tile * f) return inner_.encode(context, x);
  if (x.shape[1] % f || x.shape[2] % f)
    throw Error(ErrorCode::InvalidArgument,
                format("Expected a picture whose sides are multiples of %lld, as it is encoded in tiles, but "
                       "received %s",
                       static_cast<long long>(f), x.shape.text().c_str()));
  const Grid grid{tile * f, step * f, tile - step, step, height, width};
  Context apart = untiled(context);
  return byTiles(context, x, grid, (posterior() ? 2 : 1) * latentChannels(), posterior(),
                 [&](const Tensor& t) { return inner_.encode(apart, t); });
}

Tensor TiledAutoencoder::decode(Context& context, const Tensor& z) const {
  const int64_t f = factor();
  const auto [tile, step] = latentGrid(tiling_, f, posterior());
  if (posterior() && z.shape[1] <= tile && z.shape[2] <= tile) return inner_.decode(context, z);
  const Grid grid{tile, step, (tile - step) * f, step * f, z.shape[1] * f, z.shape[2] * f};
  Context apart = untiled(context);
  return byTiles(context, z, grid, outChannels(), posterior(),
                 [&](const Tensor& t) { return inner_.decode(apart, t); });
}

}  // namespace nd
