#include "binding/convert.h"

namespace nd::binding {

namespace {

[[noreturn]] void wrong(const char* name, const char* expected) {
  throw Error(ErrorCode::InvalidArgument, format("Expected %s for %s", expected, name));
}

std::vector<int64_t> integers(const Napi::Object& o, const char* name) {
  std::vector<int64_t> out;
  for (const int32_t v : ints(o, name)) out.push_back(v);
  return out;
}

}  // namespace

ControlNetConfig controlNetConfig(const Napi::Object& o) {
  ControlNetConfig c;
  c.unet = unetConfig(object(o, "unet"));
  c.pictureChannels = integer(o, "pictureChannels");
  c.pictureWidths = integers(o, "pictureWidths");
  if (c.pictureWidths.empty()) wrong("pictureWidths", "at least one width");
  c.bgr = boolean(o, "bgr");
  c.globalPool = boolean(o, "globalPool");
  return c;
}

T2iAdapterConfig t2iAdapterConfig(const Napi::Object& o) {
  using Kind = T2iAdapterConfig::Kind;
  T2iAdapterConfig c;
  const std::string kind = string(o, "kind");
  if (kind != "full" && kind != "fullXl" && kind != "light") wrong("kind", "'full', 'fullXl' or 'light'");
  c.kind = kind == "light" ? Kind::Light : kind == "fullXl" ? Kind::FullXl : Kind::Full;
  c.inChannels = integer(o, "inChannels");
  c.widths = integers(o, "widths");
  if (c.widths.empty()) wrong("widths", "at least one width");
  c.resnets = static_cast<int>(integer(o, "resnets"));
  c.downscaleFactor = integer(o, "downscaleFactor");
  return c;
}

std::vector<ControlInput> controlInputs(const Napi::Object& o, const char* name) {
  const Napi::Array all = array(o, name);
  std::vector<ControlInput> out;
  for (uint32_t i = 0; i < all.Length(); i++) {
    if (!all.Get(i).IsObject()) wrong(name, "objects");
    const auto c = all.Get(i).As<Napi::Object>();
    ControlInput in{integer(c, "id"),
                    boolean(c, "adapter"),
                    pictures(array(c, "pictures"), "pictures"),
                    ints(c, "pictureOf"),
                    {}};
    if (has(c, "masks")) in.masks = pictures(array(c, "masks"), "masks");
    if (!in.masks.empty() && in.masks.size() != in.pictures.size()) wrong("masks", "a mask per picture");
    for (const int32_t p : in.pictureOf)
      if (p < 0 || static_cast<size_t>(p) >= in.pictures.size()) wrong("pictureOf", "numbers of pictures");
    out.push_back(std::move(in));
  }
  return out;
}

}  // namespace nd::binding
