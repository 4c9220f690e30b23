#include "binding/convert.h"

namespace nd::binding {

namespace {

[[noreturn]] void wrong(const char* name, const char* expected) {
  throw Error(ErrorCode::InvalidArgument, format("Expected %s for %s", expected, name));
}

template <class T>
T choice(const Napi::Object& o, const char* name, std::initializer_list<std::pair<const char*, T>> names) {
  const std::string value = string(o, name);
  for (const auto& [text, result] : names)
    if (value == text) return result;
  wrong(name, "one of its names");
}

}  // namespace

std::vector<Picture> pictures(const Napi::Array& all, const char* name) {
  std::vector<Picture> out;
  for (uint32_t i = 0; i < all.Length(); i++) {
    if (!all.Get(i).IsObject()) wrong(name, "pictures");
    const auto p = all.Get(i).As<Napi::Object>();
    Picture picture{integer(p, "width"), integer(p, "height"), {}};
    const Napi::Value data = p.Get("data");
    if (!data.IsTypedArray() || data.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array)
      wrong(name, "a Uint8Array of RGB");
    const auto bytes = data.As<Napi::Uint8Array>();
    if (picture.width < 1 || picture.height < 1 ||
        static_cast<double>(picture.width) * static_cast<double>(picture.height) * 3 !=
            static_cast<double>(bytes.ElementLength()))
      wrong(name, "width · height · 3 bytes");
    picture.rgb.assign(bytes.Data(), bytes.Data() + bytes.ElementLength());
    out.push_back(std::move(picture));
  }
  return out;
}

PictureInput pictureInput(const Napi::Object& o) {
  PictureInput in;
  in.task = choice<PictureTask>(
      o, "task",
      {{"img2img", PictureTask::Img2Img}, {"inpaint", PictureTask::Inpaint}, {"edit", PictureTask::Edit}});
  in.pictures = pictures(array(o, "pictures"), "pictures");
  in.masks = pictures(array(o, "masks"), "masks");
  if (has(o, "latents")) in.latents = floats(o, "latents");
  in.start = choice<PictureStart>(
      o, "start",
      {{"noised", PictureStart::Noised}, {"noise", PictureStart::PureNoise}, {"clean", PictureStart::Clean}});
  in.resize = choice<ResizeMode>(
      o, "resizeMode",
      {{"default", ResizeMode::Stretch}, {"fill", ResizeMode::Fill}, {"crop", ResizeMode::Crop}});
  if (has(o, "repaint")) {
    const Napi::Object r = object(o, "repaint");
    in.repaint.invert = boolean(r, "invert");
    in.repaint.blur = number(r, "blur");
    if (has(r, "region")) in.repaint.region = integer(r, "region");
    in.repaint.overlay = boolean(r, "overlay");
    in.repaint.content = choice<MaskedContent>(r, "content",
                                               {{"original", MaskedContent::Original},
                                                {"fill", MaskedContent::Fill},
                                                {"latentNoise", MaskedContent::LatentNoise},
                                                {"latentNothing", MaskedContent::LatentNothing}});
  }
  in.alpha = number(o, "alpha");
  in.sigma = number(o, "sigma");
  return in;
}

}  // namespace nd::binding
