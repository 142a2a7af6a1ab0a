// A strict event parser for the header: {"name": {"dtype": s, "shape": [n...], "data_offsets": [b, e]},
// "__metadata__": {s: s}}. Anything else, at any depth, ends the parse at once.
#include "checkpoints/safetensors_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/error.h"

namespace longreach {
namespace {

constexpr size_t kMaxTensors = 200'000, kMaxMetadata = 200'000, kMaxDimensions = 32;

struct DtypeSize {
  std::string_view name;
  int64_t bytes;
};
constexpr std::array<DtypeSize, 10> kDtypes = {{{"F64", 8},
                                                {"F32", 4},
                                                {"F16", 2},
                                                {"BF16", 2},
                                                {"I64", 8},
                                                {"I32", 4},
                                                {"I16", 2},
                                                {"I8", 1},
                                                {"U8", 1},
                                                {"BOOL", 1}}};

// "[2, 3]"
std::string shape_text(const std::vector<int64_t>& shape) {
  std::vector<std::string> sizes;
  for (const int64_t size : shape) sizes.push_back(std::to_string(size));
  return "[" + join(sizes) + "]";
}

class HeaderParser : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderParser(SafetensorsHeader& header) : header_(header) {}
  const std::string& error() const { return error_; }

  bool start_object(size_t) override {
    switch (place_) {
      case Place::kStart:
        place_ = Place::kTop;
        return true;
      case Place::kTop:
        if (key_ == "__metadata__") return enter_metadata();
        return enter_tensor();
      default:
        return refuse("an object where none belongs");
    }
  }
  bool end_object() override {
    switch (place_) {
      case Place::kTensor:
        place_ = Place::kTop;
        return finish_tensor();
      case Place::kMetadata:
        place_ = Place::kTop;
        return true;
      default:
        place_ = Place::kEnd;
        return true;
    }
  }
  bool key(std::string& name) override {
    if (place_ == Place::kTop) {
      tensor_ = name;
      key_ = std::move(name);
      return true;
    }
    key_ = std::move(name);
    if (place_ == Place::kMetadata) return true;
    const int bit = key_ == "dtype" ? 1 : key_ == "shape" ? 2 : key_ == "data_offsets" ? 4 : 0;
    if (bit == 0) return refuse("unknown key `" + key_ + "`");
    if (seen_ & bit) return refuse("key `" + key_ + "` twice");
    seen_ |= bit;
    return true;
  }
  bool string(std::string& value) override {
    if (place_ == Place::kMetadata) {
      if (header_.metadata.size() >= kMaxMetadata) return refuse("too many metadata entries");
      const auto [where, inserted] = header_.metadata.emplace(key_, std::move(value));
      return inserted || refuse("metadata key `" + where->first + "` twice");
    }
    if (place_ != Place::kTensor || key_ != "dtype") return refuse("a string where none belongs");
    entry_.dtype = std::move(value);
    return true;
  }
  bool start_array(size_t) override {
    if (place_ != Place::kTensor || key_ == "dtype") return refuse("a list where none belongs");
    place_ = Place::kArray;
    numbers_.clear();
    return true;
  }
  bool end_array() override {
    place_ = Place::kTensor;
    if (key_ == "shape") {
      entry_.shape = numbers_;
      return true;
    }
    if (numbers_.size() != 2) return refuse("data_offsets must hold two numbers");
    entry_.begin = numbers_[0];
    entry_.end = numbers_[1];
    return true;
  }
  bool number_unsigned(uint64_t value) override {
    if (place_ != Place::kArray) return refuse("a number where none belongs");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return refuse("a number beyond 2^63");
    if (numbers_.size() >= kMaxDimensions) return refuse(text("more than ", kMaxDimensions, " dimensions"));
    numbers_.push_back(static_cast<int64_t>(value));
    return true;
  }
  bool number_integer(int64_t) override { return refuse("a negative number"); }
  bool number_float(double, const std::string&) override { return refuse("a number that is no size"); }
  bool null() override { return refuse("null where a value belongs"); }
  bool boolean(bool) override { return refuse("true or false where a value belongs"); }
  bool binary(nlohmann::json::binary_t&) override { return refuse("binary data"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    error_ = text("header is not valid JSON at byte ", position);
    return false;
  }

 private:
  enum class Place { kStart, kTop, kTensor, kArray, kMetadata, kEnd };

  bool refuse(const std::string& why) {
    error_ = tensor_.empty() ? text("header: ", why) : text("header: `", tensor_, "`: ", why);
    return false;
  }
  bool enter_metadata() {
    if (metadata_seen_) return refuse("key `__metadata__` twice");
    metadata_seen_ = true;
    place_ = Place::kMetadata;
    return true;
  }
  bool enter_tensor() {
    if (header_.entries.size() >= kMaxTensors) return refuse("too many tensors");
    entry_ = {};
    seen_ = 0;
    place_ = Place::kTensor;
    return true;
  }
  bool finish_tensor() {
    if (seen_ != 7) return refuse("needs dtype, shape and data_offsets");
    return header_.entries.emplace(tensor_, std::move(entry_)).second || refuse("name twice");
  }

  SafetensorsHeader& header_;
  Place place_ = Place::kStart;
  std::string key_, tensor_, error_;
  SafetensorsEntry entry_;
  std::vector<int64_t> numbers_;
  int seen_ = 0;  // bits: dtype 1, shape 2, data_offsets 4
  bool metadata_seen_ = false;
};

// Elements times size equals the range, without overflow.
void check_entry(const std::string& who, const SafetensorsEntry& entry, int64_t data_bytes) {
  const int64_t element = safetensors_element_size(entry.dtype, who);
  if (entry.begin > entry.end || entry.end > data_bytes)
    throw CheckpointError(one_line(text(who, ": data_offsets [", entry.begin, ", ", entry.end,
                                        "], allowed: within 0 and ", data_bytes)));
  // A zero dimension makes an empty tensor, but the product of the others must still be a number: strides are
  // made of it.
  int64_t bytes = element, others = element;
  bool fits = true;
  for (const int64_t size : entry.shape) {
    fits = !__builtin_mul_overflow(others, std::max<int64_t>(size, 1), &others) && fits;
    bytes = size == 0 ? 0 : bytes;
  }
  if (bytes != 0) bytes = others;
  if (!fits || bytes != entry.end - entry.begin)
    throw CheckpointError(one_line(text(who, ": shape ", shape_text(entry.shape), " of ", entry.dtype,
                                        " needs ", fits ? text(bytes) : std::string("more than 2^63"),
                                        " bytes, data_offsets give ", entry.end - entry.begin)));
}

// The tensors must tile the data: no byte twice, none unused.
void check_layout(const SafetensorsHeader& header, int64_t data_bytes, const std::string& path) {
  using Named = std::pair<const std::string, SafetensorsEntry>;
  std::vector<const Named*> order;
  for (const Named& named : header.entries) order.push_back(&named);
  std::sort(order.begin(), order.end(), [](const Named* a, const Named* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  int64_t at = 0;
  for (const Named* named : order) {
    if (named->second.begin != at)
      throw CheckpointError(one_line(
          text(path, ": `", named->first, "`: starts at byte ", named->second.begin, " of the data, ",
               named->second.begin < at ? "inside another tensor" : "leaving a hole", "; expected ", at)));
    at = named->second.end;
  }
  if (at != data_bytes)
    throw CheckpointError(
        one_line(text(path, ": ", data_bytes - at, " bytes after the last tensor belong to none")));
}

}  // namespace

int64_t safetensors_element_size(const std::string& dtype, const std::string& who) {
  std::vector<std::string> names;
  for (const DtypeSize& known : kDtypes) {
    if (known.name == dtype) return known.bytes;
    names.emplace_back(known.name);
  }
  throw CheckpointError(one_line(text(who, ": dtype `", one_line(dtype, 40), "`, allowed: ", join(names))));
}

SafetensorsHeader parse_safetensors_header(std::string_view json, int64_t data_bytes,
                                           const std::string& path) {
  SafetensorsHeader header;
  HeaderParser parser(header);
  check<CheckpointError>(!json.empty() && json.front() == '{', one_line(path),
                         ": header does not start with `{`");
  if (!nlohmann::json::sax_parse(json.data(), json.data() + json.size(), &parser) || !parser.error().empty())
    throw CheckpointError(one_line(text(path, ": ", parser.error())));
  for (const auto& [name, entry] : header.entries)
    check_entry(text(path, ": `", name, "`"), entry, data_bytes);
  check_layout(header, data_bytes, path);
  return header;
}

}  // namespace longreach
