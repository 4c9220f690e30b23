#include "engine/conditioning.h"

#include <algorithm>
#include <numeric>

namespace nd {

namespace {

/// A1111's emphasis: every token's vector times its weight, then the whole scaled back to the mean it had, per
/// sequence.
void emphasize(std::vector<float>& hidden, const std::vector<float>& weights, int64_t length, int64_t width) {
  const auto sequence = static_cast<size_t>(length * width);
  for (size_t start = 0, token = 0; start < hidden.size(); start += sequence) {
    const auto begin = hidden.begin() + static_cast<ptrdiff_t>(start), end = begin + static_cast<ptrdiff_t>(sequence);
    const double before = std::accumulate(begin, end, 0.0);
    for (auto row = begin; row != end; row += width, token++)
      for (auto v = row; v != row + width; v++) *v *= weights[token];
    const double after = std::accumulate(begin, end, 0.0);
    if (after != 0)
      for (auto v = begin; v != end; v++) *v = static_cast<float>(*v * (before / after));
  }
}

}  // namespace

Conditioning encodePrompts(Context& context, const std::vector<const ClipText*>& encoders, const PromptInput& prompt) {
  if (!prompt.embeds.empty()) {
    const auto values = static_cast<int64_t>(prompt.embeds.size());
    return {upload(context, prompt.embeds, {prompt.rows, prompt.embedTokens, values / (prompt.rows * prompt.embedTokens)}),
            prompt.pooled};
  }
  expect(encoders.size() == prompt.encoders.size() && !encoders.empty(), "one input per text encoder");
  const int64_t sequences = prompt.rows * prompt.chunks;
  int64_t width = 0;
  for (const ClipText* e : encoders) width += e->config().hiddenSize;

  Conditioning out;
  out.text = context.arena.tensor({prompt.rows, prompt.chunks * prompt.length, width});
  Arena::Scope scope(context.arena);
  const Tensor flat = reshape(out.text, {sequences, prompt.length, width});
  int64_t column = 0;
  for (size_t i = 0; i < encoders.size(); i++) {
    const ClipText& encoder = *encoders[i];
    const EncoderInput& input = prompt.encoders[i];
    expect(static_cast<int64_t>(input.ids.size()) == sequences * prompt.length, "ids [rows, chunks, length]");
    const ClipText::Output encoded = encoder.encode(context, input.ids, prompt.length);
    const auto depth = static_cast<int>(encoded.hiddenStates.size());
    if (prompt.skip < 0 || prompt.skip >= depth)
      throw Error(ErrorCode::InvalidArgument,
                  format("Expected clipSkip to leave at least one of the text encoder's %d layers but received %d",
                         depth - 1, prompt.skip));
    Tensor hidden = encoded.last;
    if (prompt.skip > 0) {
      hidden = encoded.hiddenStates[static_cast<size_t>(depth - 1 - prompt.skip)];
      if (prompt.normSkipped) hidden = encoder.finalNorm(context, hidden);
    }
    const int64_t own = encoder.config().hiddenSize;
    const bool zeros = std::any_of(prompt.zeroRows.begin(), prompt.zeroRows.end(), [](uint8_t z) { return z; });
    if (!input.weights.empty() || zeros) {  // seldom: by way of the host
      std::vector<float> host(static_cast<size_t>(hidden.shape.count()));
      context.backend.download(hidden, host.data());
      if (!input.weights.empty()) emphasize(host, input.weights, prompt.length, own);
      const auto row = static_cast<ptrdiff_t>(prompt.chunks * prompt.length * own);
      for (size_t r = 0; zeros && r < prompt.zeroRows.size(); r++)
        if (prompt.zeroRows[r])
          std::fill_n(host.begin() + static_cast<ptrdiff_t>(r) * row, row, 0.0f);
      hidden = upload(context, host, hidden.shape);
    }
    context.backend.copyColumns(hidden, flat, column);
    column += own;

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
