// What surrounds inpainting: masks inverted and feathered, the region around a mask cut out to be painted at
// full size, what the masked part begins with, and the painted part laid back over the picture. As in
// diffusers' VaeImageProcessor and AUTOMATIC1111, to Pillow's rounding.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "engine/resize.h"

namespace nd {

/// AUTOMATIC1111's "masked content": what is under the mask before the first step.
enum class MaskedContent : uint8_t {
  Original,
  Fill,          // the surrounding colours, blurred into it
  LatentNoise,   // Fill's latents, noise under the mask
  LatentNothing  // Fill's latents, zero under the mask
};

struct RepaintOptions {
  bool invert = false;            // paint where the mask is black
  double blur = 0;                // σ of the feather, in the mask's pixels
  std::optional<int64_t> region;  // paint only what surrounds the mask, with so many pixels of padding
  bool overlay = false;           // the picture itself comes back where the mask is black
  MaskedContent content = MaskedContent::Original;
};

struct Rectangle {
  int64_t left, top, right, bottom;  // right and bottom are beyond it
  int64_t width() const { return right - left; }
  int64_t height() const { return bottom - top; }
};

/// What is laid over a painted picture.
struct Overlay {
  Picture picture, mask;  // of one size
  std::optional<Rectangle> region;
};

/// Pillow's GaussianBlur over interleaved bytes: three box blurs along each side (Gwosdek et al. 2011).
void gaussianBlur(std::vector<uint8_t>& data, int64_t width, int64_t height, int64_t channels, double sigma);

/// The mask's bounding box with padding, widened to the proportions of width × height: diffusers'
/// VaeImageProcessor.get_crop_region.
Rectangle cropRegion(const Picture& mask, int64_t width, int64_t height, int64_t padding);

/// The part of the picture in a rectangle; black beyond its edges, as Pillow's crop.
Picture cropped(const Picture&, const Rectangle&);

/// What prepareRepaint() will cut out of a picture by its mask; empty where there is no region.
std::optional<Rectangle> repaintRegion(const RepaintOptions&, const Picture& picture, Picture mask,
                                       int64_t width, int64_t height);

/// Colours from around the mask, blurred into it from coarse to fine.
Picture filledUnderMask(const Picture& picture, const Picture& mask);

/// Masks inverted and blurred; with `region`, pictures and masks become pairs cut out of themselves, and are
/// to be resized with ResizeMode::Fill. Returns what to lay over the results, one per pair; empty where
/// nothing is.
std::vector<Overlay> prepareRepaint(const RepaintOptions&, std::vector<Picture>& pictures,
                                    std::vector<Picture>& masks, int64_t width, int64_t height);

/// The painted picture under what is kept: diffusers' VaeImageProcessor.apply_overlay.
Picture overlaid(const Overlay&, const Picture& painted);

/// The same for a batch [B, height, width, 3], image b under overlay b mod n. Where the overlays have regions
/// the results have the pictures' own size, which becomes `width` and `height`.
std::vector<uint8_t> overlaidAll(const std::vector<Overlay>&, const std::vector<uint8_t>& painted,
                                 int64_t& width, int64_t& height);

}  // namespace nd
