// What conditioning asks of a text encoder, whichever network it is: CLIP's text tower, LDM's BERT, T5.
#pragma once

#include <span>
#include <vector>

#include "engine/weight-loader.h"

namespace nd {

class TextEncoder {
 public:
  virtual ~TextEncoder() = default;

  struct Output {
    std::vector<Tensor> hiddenStates;  // layers + 1, each [B, L, C]: the embeddings, then after each layer
    Tensor last;                       // [B, L, C], after the final norm
    Tensor pooled;                     // [B, C]; empty where the network has none
    Tensor projected;                  // [B, projectionDim]; empty without a projection
  };
  /// ids: whole sequences of `length` tokens. `mask`, like ids: 0 where a token is padding that no other may
  /// see; empty where all are seen. Only networks that read it are given one.
  virtual Output encode(Context&, std::span<const int32_t> ids, int64_t length,
                        std::span<const uint8_t> mask = {}) const = 0;
  /// The final norm over any hidden state (diffusers' clip_skip).
  virtual Tensor finalNorm(Context&, const Tensor& hidden) const = 0;
  /// C
  virtual int64_t width() const = 0;

  /// Embeddings [rows, C] of the ids after the vocabulary's: textual inversion; or none.
  void setAddedTokens(WeightPtr table) { added_ = std::move(table); }
  const WeightPtr& addedTokens() const { return added_; }

 protected:
  /// [B, L, C] of ids of the vocabulary and of added ones.
  Tensor embeddings(Context&, const WeightPtr& tokens, const WeightPtr& positions,
                    std::span<const int32_t> ids, int64_t length) const;

 private:
  WeightPtr added_;
};

/// Throws Error(InvalidArgument) unless ids are whole sequences of 1 to `longest` tokens.
void checkSequences(std::span<const int32_t> ids, int64_t length, int64_t longest);

}  // namespace nd
