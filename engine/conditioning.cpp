#include "engine/conditioning.h"

#include <algorithm>
#include <numeric>

namespace nd {

namespace {

/// A1111's emphasis: every token's vector times its weight, then the whole scaled back to the mean it had,
/// per sequence.
void emphasize(std::vector<float>& hidden, const float* weights, int64_t length, int64_t width) {
  const auto sequence = static_cast<size_t>(length * width);
  for (size_t start = 0, token = 0; start < hidden.size(); start += sequence) {
    const auto begin = hidden.begin() + static_cast<ptrdiff_t>(start),
               end = begin + static_cast<ptrdiff_t>(sequence);
    const double before = std::accumulate(begin, end, 0.0);
    for (auto row = begin; row != end; row += width, token++)
      for (auto v = row; v != row + width; v++) *v *= weights[token];
    const double after = std::accumulate(begin, end, 0.0);
    if (after != 0)
      for (auto v = begin; v != end; v++) *v = static_cast<float>(*v * (before / after));
  }
}

Tensor hiddenState(Context& context, const TextEncoder& encoder, const TextEncoder::Output& encoded, int skip,
                   bool norm) {
  const auto depth = static_cast<int>(encoded.hiddenStates.size());
  if (skip < 0 || skip >= depth)
    throw Error(
        ErrorCode::InvalidArgument,
        format("Expected clipSkip to leave at least one of the text encoder's %d layers but received %d",
               depth - 1, skip));
  if (skip == 0 && norm) return encoded.last;
  const Tensor& state = encoded.hiddenStates[static_cast<size_t>(depth - 1 - skip)];
  return norm ? encoder.finalNorm(context, state) : state;
}

/// Weights and zero rows, for the rows of `state` that begin at `firstRow`; seldom needed, so by way of the
/// host.
Tensor adjust(Context& context, const Tensor& state, const PromptInput& prompt, const EncoderInput& input,
              int64_t firstRow) {
  const int64_t width = state.shape.last(), rows = state.shape[0] / prompt.chunks;
  const auto zero = [&](int64_t r) {
    return !prompt.zeroRows.empty() && prompt.zeroRows[static_cast<size_t>(firstRow + r)];
  };
  bool zeros = false;
  for (int64_t r = 0; r < rows; r++) zeros = zeros || zero(r);
  if (input.weights.empty() && !zeros) return state;

  std::vector<float> host(static_cast<size_t>(state.shape.count()));
  context.backend.download(state, host.data());
  const int64_t tokens = prompt.chunks * prompt.length;
  if (!input.weights.empty()) emphasize(host, input.weights.data() + firstRow * tokens, prompt.length, width);
  for (int64_t r = 0; r < rows; r++)
    if (zero(r)) std::fill_n(host.begin() + static_cast<ptrdiff_t>(r * tokens * width), tokens * width, 0.0f);
  return upload(context, host, state.shape);
}

}  // namespace

Conditioning encodePrompts(Context& context, const std::vector<const TextEncoder*>& encoders,
                           const PromptInput& prompt) {
  if (!prompt.embeds.empty()) {
    const auto values = static_cast<int64_t>(prompt.embeds.size());
    return {upload(context, prompt.embeds,
                   {prompt.rows, prompt.embedTokens, values / (prompt.rows * prompt.embedTokens)}),
            prompt.pooled};
  }
  expect(encoders.size() == prompt.encoders.size() && !encoders.empty(), "one input per text encoder");
  const int64_t sequences = prompt.rows * prompt.chunks;
  int64_t width = 0;
  for (const TextEncoder* e : encoders) width += e->width();

  Conditioning out;
  out.text = context.arena.tensor({prompt.rows, prompt.chunks * prompt.length, width});
  Arena::Scope scope(context.arena);
  const Tensor flat = reshape(out.text, {sequences, prompt.length, width});
  int64_t column = 0;
  for (size_t i = 0; i < encoders.size(); i++) {
    const TextEncoder& encoder = *encoders[i];
    const EncoderInput& input = prompt.encoders[i];
    expect(static_cast<int64_t>(input.ids.size()) == sequences * prompt.length, "ids [rows, chunks, length]");
    const TextEncoder::Output encoded = encoder.encode(context, input.ids, prompt.length, input.mask);
    const auto place = [&](int64_t firstRow, int64_t rows, int skip) {
      if (rows == 0) return;
      const Tensor state = slice(context, hiddenState(context, encoder, encoded, skip, prompt.normSkipped),
                                 firstRow * prompt.chunks, rows * prompt.chunks);
      const Tensor adjusted = adjust(context, state, prompt, input, firstRow);
      context.backend.copyColumns(
          adjusted, slice(context, flat, firstRow * prompt.chunks, rows * prompt.chunks), column);
    };
    place(0, prompt.negativeRows, prompt.negativeSkip);
    place(prompt.negativeRows, prompt.rows - prompt.negativeRows, prompt.skip);
    column += encoder.width();

    if (encoded.projected) {
      const int64_t n = encoded.projected.shape.last();
      std::vector<float> all(static_cast<size_t>(encoded.projected.shape.count()));
      context.backend.download(encoded.projected, all.data());
      out.pooled.clear();
      for (int64_t r = 0; r < prompt.rows; r++) {
        const auto first = all.begin() + static_cast<ptrdiff_t>(r * prompt.chunks * n);
        out.pooled.insert(out.pooled.end(), first, first + static_cast<ptrdiff_t>(n));
        if (!prompt.zeroRows.empty() && prompt.zeroRows[static_cast<size_t>(r)])
          std::fill(out.pooled.end() - static_cast<ptrdiff_t>(n), out.pooled.end(), 0.0f);
      }
    }
  }
  return out;
}

}  // namespace nd
