#include "engine/image-prompts.h"

namespace nd {

namespace {

void check(const IpAdapter& adapter, const ImagePrompt& prompt, size_t attentions) {
  const IpAdapterConfig& c = adapter.config();
  const int64_t values = prompt.rows * prompt.images * prompt.states * c.embedWidth;
  if (c.attentions.size() != attentions || prompt.scales.size() != attentions)
    throw Error(ErrorCode::InvalidArgument,
                format("Expected an IP-Adapter and scales for %zu cross-attentions but received %zu and %zu",
                       attentions, c.attentions.size(), prompt.scales.size()));
  if (prompt.images < 1 || static_cast<int64_t>(prompt.embeds.size()) != values ||
      (c.projection == ImageProjectionKind::Tokens && prompt.states != 1))
    throw Error(
        ErrorCode::InvalidArgument,
        format("Expected image embeddings of width %lld for the IP-Adapter but received %zu values "
               "for %lld pictures of %lld states",
               static_cast<long long>(c.embedWidth), prompt.embeds.size(),
               static_cast<long long>(prompt.rows) * prompt.images, static_cast<long long>(prompt.states)));
}

/// Row 0 for every entry of the branches without the picture, the last row for the others.
Tensor perEntry(Context& context, const Tensor& x, const PromptedBatch& of) {
  const int64_t rows = x.shape[0], length = x.shape[1], batch = of.branches * of.perBranch;
  if (rows == batch) return x;
  std::vector<int32_t> from;
  for (int64_t b = 0; b < batch; b++) {
    const int64_t row = b < batch - of.prompted * of.perBranch ? 0 : rows - 1;
    for (int64_t i = 0; i < length; i++) from.push_back(static_cast<int32_t>(row * length + i));
  }
  return reshape(gatherRows(context, x, from), {batch, length, x.shape[2]});
}

}  // namespace

void addImagePrompts(Context& context, const std::vector<std::unique_ptr<IpAdapter>>& adapters,
                     const std::vector<ImagePrompt>& prompts, const PromptedBatch& batch, UNet::Text& text) {
  if (prompts.size() != adapters.size())
    throw Error(ErrorCode::InvalidArgument,
                format("Expected image prompts for %zu IP-Adapters but received %zu; were they loaded or "
                       "unloaded while the call was waiting?",
                       adapters.size(), prompts.size()));
  for (size_t a = 0; a < adapters.size(); a++) {
    const IpAdapter& adapter = *adapters[a];
    const ImagePrompt& prompt = prompts[a];
    check(adapter, prompt, text.size());
    expect(prompt.rows == (batch.branches > batch.prompted ? 2 : 1), "rows without and with the picture");
    const Tensor embeds = upload(context, prompt.embeds,
                                 {prompt.rows * prompt.images, prompt.states, adapter.config().embedWidth});
    const Tensor tokens = adapter.tokens(context, embeds);
    const Tensor joined = reshape(tokens, {prompt.rows, prompt.images * tokens.shape[1], tokens.shape[2]});
    for (size_t i = 0; i < text.size(); i++)
      if (prompt.scales[i] != 0)
        text[i].images.push_back(
            {perEntry(context, adapter.keysValues(context, joined, i), batch), prompt.scales[i]});
  }
}

}  // namespace nd
