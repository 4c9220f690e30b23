// From token ids to what steers the UNet: hidden states of one or two text towers, A1111 weights, long
// prompts in chunks, the pooled vector.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/models/text-encoder.h"

namespace nd {

/// The prompts of one text encoder: `rows` prompts of `chunks` sequences of `length` tokens.
struct EncoderInput {
  std::vector<int32_t> ids;    // [rows, chunks, length]
  std::vector<float> weights;  // like ids; empty: all 1
  std::vector<uint8_t> mask;   // like ids: 0 for padding that is not seen; empty: all are seen
};

struct PromptInput {
  int64_t rows = 1, chunks = 1, length = 77;
  std::vector<EncoderInput> encoders;  // as many as the model has
  /// Which hidden state steers the UNet: 0 the last one after the final norm; n > 0 the n-th before the end.
  int skip = 0;
  /// The first rows, negative prompts, have a number of their own: diffusers' clip_skip does not reach them.
  int64_t negativeRows = 0;
  int negativeSkip = 0;
  bool normSkipped = true;        // the final norm over a skipped state too (SD; SDXL takes it raw)
  std::vector<uint8_t> zeroRows;  // rows that become all zeros (SDXL's empty negative prompt); may be empty
  /// Where the caller has embeddings already: they are used instead of the encoders.
  std::vector<float> embeds;  // [rows, tokens, Σ widths]
  int64_t embedTokens = 0;
  std::vector<float> pooled;  // [rows, pooled width]
};

struct Conditioning {
  Tensor text;  // [rows, chunks·length, Σ widths of the encoders]
  std::vector<float>
      pooled;  // [rows, projectionDim] of the last encoder with a projection, first chunk; or empty
};

/// The text tensor lives in the arena until the caller's mark.
Conditioning encodePrompts(Context&, const std::vector<const TextEncoder*>& encoders, const PromptInput&);

}  // namespace nd
