#include "engine/model-parts.h"

#include <system_error>

namespace nd {

namespace {

TensorMap openTensors(const ModelPart& part) {
  TensorMap tensors(part.component);
  std::vector<std::shared_ptr<const SafetensorsFile>> files;
  for (const std::string& path : part.files) files.push_back(SafetensorsFile::open(path));
  for (const ModelPart::Source& s : part.sources) tensors.add(s.name, files[s.file], s.stored, s.view);
  return tensors;
}

std::filesystem::path pathOf(const std::string& utf8) { return {std::u8string(utf8.begin(), utf8.end())}; }

}  // namespace

ModelParts::Stamp ModelParts::stampOf(const std::string& path) {
  std::error_code failed;  // a file that is gone has a stamp of its own
  const uintmax_t size = std::filesystem::file_size(pathOf(path), failed);
  return {failed ? 0 : size, std::filesystem::last_write_time(pathOf(path), failed)};
}

void ModelParts::load(Context& context, Models& models, ModelPart description) {
  if (!description.adaptable) {
    const TensorMap tensors = openTensors(description);
    description.build(models, WeightLoader(context.backend, tensors));
    return;
  }
  auto part = std::make_unique<Part>();
  part->description = std::move(description);
  for (const std::string& path : part->description.files) part->stamps.push_back(stampOf(path));
  const TensorMap tensors = openTensors(part->description);
  part->description.build(models, WeightLoader(context.backend, tensors, &part->cache));
  part->cache.commit();
  parts_.push_back(std::move(part));
}

/// The files must still be those that the model was loaded from: weights of two models must not mix.
const TensorMap& ModelParts::open(Part& part) {
  if (part.tensors) return *part.tensors;
  for (size_t i = 0; i < part.stamps.size(); i++)
    if (!(stampOf(part.description.files[i]) == part.stamps[i]))
      throw Error(ErrorCode::ModelNotFound,
                  format("%s: expected the file that this model was loaded from, whose weights the adapter "
                         "changes, but it is gone or was changed; load the model again",
                         part.description.files[i].c_str()));
  return part.tensors.emplace(openTensors(part.description));
}

void ModelParts::addAdapter(uint32_t id, const std::string& path, std::vector<WeightChange> changes) {
  const auto adapter = std::make_shared<const Adapter>(path, std::move(changes));
  for (const auto& part : parts_) {
    const ModelPart& p = part->description;
    std::optional<TensorMap> opened;
    for (const WeightChange& change : adapter->changes()) {
      if (change.component != p.component || change.index != p.index) continue;
      if (!part->tensors && !opened) opened = openTensors(p);
      const std::optional<Shape> shape = (opened ? *opened : *part->tensors).shape(change.tensor);
      if (!shape)
        throw Error(ErrorCode::ModelFormat, format("%s: expected a tensor %s in the model but it has none",
                                                   path.c_str(), change.tensor.c_str()));
      adapter->check(change, *shape);
    }
  }
  adapters_[id] = adapter;
}

void ModelParts::use(Context& context, Models& models, std::span<const AdapterUse> uses) {
  for (const auto& part : parts_) {
    const ModelPart& p = part->description;
    AdapterEdits edits(context);
    for (const AdapterUse& use : uses) {
      const auto adapter = adapters_.find(use.id);
      if (adapter == adapters_.end())
        throw Error(
            ErrorCode::InvalidArgument,
            "Expected the adapters of this call to stay loaded until it has run but one was unloaded");
      edits.add(use.id, adapter->second, p.component, p.index,
                p.component == "unet" ? use.unet : use.textEncoder);
    }
    if (edits.description() == part->adapters) continue;
    try {
      p.build(models, WeightLoader(context.backend, open(*part), &part->cache, &edits));
    } catch (...) {
      part->cache.rollback();
      if (part->adapters.empty()) part->tensors.reset();
      throw;
    }
    part->cache.commit();
    part->adapters = edits.description();
    if (part->adapters.empty()) part->tensors.reset();
  }
}

}  // namespace nd
