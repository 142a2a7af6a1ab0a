// The header, read once from front to back. Counts that a file claims allocate nothing: what is stored grows
// with the bytes that were read.
#include "checkpoints/formats/gguf/gguf_header.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/utf8.h"

namespace longreach {
namespace {

constexpr uint64_t kMaxKeys = 65536, kMaxTensors = 200'000;
constexpr size_t kMaxDimensions = 4, kMaxKeyName = 65535, kMaxTensorName = 64;
constexpr uint64_t kDefaultAlignment = 32;

// Takes the file apart; every error names what was being read.
class Cursor {
 public:
  Cursor(std::string_view file, const std::string& path) : file_(file), path_(path) {}

  size_t at() const { return at_; }

  template <class... Parts>
  void need(bool condition, const Parts&... what) const {
    if (!condition) throw CheckpointError(one_line(text(path_, ": ", where_, what...)));
  }
  void set_where(std::string where) { where_ = std::move(where); }

  std::string_view take(uint64_t bytes) {
    need(bytes <= file_.size() - at_, "needs ", bytes, " bytes at byte ", at_, ", the file ends at ",
         file_.size());
    at_ += bytes;
    return file_.substr(at_ - bytes, bytes);
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);  // little-endian, as this machine
    return value;
  }
  std::string_view string() {
    const std::string_view value = take(number<uint64_t>());
    need(is_utf8(value), "holds a string that is not UTF-8");
    return value;
  }

 private:
  std::string_view file_;
  const std::string& path_;
  std::string where_;
  size_t at_ = 0;
};

GgufType take_type(Cursor& in) {
  const auto type = in.number<uint32_t>();
  in.need(type <= static_cast<uint32_t>(GgufType::f64), "value type ", type, ", allowed: 0 to 12");
  return static_cast<GgufType>(type);
}

GgufValue take_value(Cursor& in, std::string_view file) {
  GgufValue value{.type = take_type(in)};
  if (value.type == GgufType::array) {
    value.is_array = true;
    value.type = take_type(in);
    in.need(value.type != GgufType::array, "is an array of arrays, which is not read");
    value.count = in.number<uint64_t>();
  }
  const size_t begin = in.at();
  if (value.type == GgufType::string) {
    for (uint64_t i = 0; i < value.count; ++i) in.string();
  } else {
    const auto size = static_cast<uint64_t>(gguf_type_bytes(value.type));
    in.need(value.count <= file.size() / size, "is an array of ", value.count, " values in a file of ",
            file.size(), " bytes");
    in.take(value.count * size);
  }
  value.bytes = file.substr(begin, in.at() - begin);
  const auto is_bit = [](char byte) { return byte == 0 || byte == 1; };
  in.need(value.type != GgufType::boolean || std::all_of(value.bytes.begin(), value.bytes.end(), is_bit),
          "holds a bool that is neither 0 nor 1");
  return value;
}

void take_keys(Cursor& in, uint64_t count, std::string_view file, GgufKeys& keys) {
  for (uint64_t i = 0; i < count; ++i) {
    in.set_where(text("key ", i, " of ", count, ": "));
    const std::string key(in.string());
    in.need(!key.empty() && key.size() <= kMaxKeyName, "a name of ", key.size(), " bytes, allowed: 1 to ",
            kMaxKeyName);
    in.set_where(text("`", one_line(key, 200), "`: "));
    in.need(keys.add(key, take_value(in, file)), "key twice");
  }
}

// A tensor before its bytes are known to be there.
struct Placed {
  GgufTensor tensor;
  uint64_t offset = 0, bytes = 0;
};

// From the file's dimensions, the innermost first. Sets shape and bytes.
void measure(const Cursor& in, const std::vector<uint64_t>& dimensions, uint64_t limit, Placed& placed) {
  const auto block = static_cast<uint64_t>(placed.tensor.type->block);
  uint64_t elements = 1;
  for (const uint64_t size : dimensions) {
    in.need(size > 0, "has a dimension of 0");
    // A file holds less than 8 values a byte whatever their type.
    in.need(!__builtin_mul_overflow(elements, size, &elements) && elements / 8 <= limit,
            "has more elements than a file of ", limit, " bytes holds");
    placed.tensor.shape.insert(placed.tensor.shape.begin(), static_cast<int64_t>(size));
  }
  const uint64_t row = dimensions.empty() ? 1 : dimensions[0];
  in.need(row % block == 0, "has rows of ", row, ", no multiple of the ", block, " values of a block of ",
          placed.tensor.type->name);
  placed.bytes = elements / block * static_cast<uint64_t>(placed.tensor.type->bytes);
}

Placed take_tensor(Cursor& in, uint64_t file_size) {
  Placed placed;
  placed.tensor.name = in.string();
  const std::string& name = placed.tensor.name;
  in.need(!name.empty() && name.size() <= kMaxTensorName, "a name of ", name.size(), " bytes, allowed: 1 to ",
          kMaxTensorName);
  in.set_where(text("`", one_line(name, 200), "`: "));
  const auto rank = in.number<uint32_t>();
  in.need(rank <= kMaxDimensions, "has ", rank, " dimensions, allowed: at most ", kMaxDimensions);
  std::vector<uint64_t> dimensions(rank);
  for (uint64_t& size : dimensions) size = in.number<uint64_t>();
  const auto type = in.number<uint32_t>();
  placed.tensor.type = ggml_type(type);
  in.need(placed.tensor.type != nullptr, "is of type ", ggml_type_name(type), ", read are ",
          ggml_types_read());
  measure(in, dimensions, file_size, placed);
  placed.offset = in.number<uint64_t>();
  return placed;
}

uint64_t alignment_of(const Cursor& in, const GgufKeys& keys) {
  constexpr const char* kKey = "general.alignment";
  if (!keys.has(kKey)) return kDefaultAlignment;
  const auto alignment = static_cast<uint64_t>(keys.integer(kKey, 1, int64_t{1} << 31));
  in.need(std::has_single_bit(alignment), "`", kKey, "`: found ", alignment, ", expected a power of two");
  return alignment;
}

// Tensors follow each other, each at the next multiple of the alignment: no byte twice, no hole.
void place(Cursor& in, std::vector<Placed>& all, std::string_view data, uint64_t alignment) {
  std::vector<Placed*> order;
  for (Placed& placed : all) order.push_back(&placed);
  std::stable_sort(order.begin(), order.end(),
                   [](const Placed* a, const Placed* b) { return a->offset < b->offset; });
  uint64_t expected = 0, end = 0;
  for (Placed* placed : order) {
    in.set_where(text("`", one_line(placed->tensor.name, 200), "`: "));
    in.need(placed->offset == expected, "starts at byte ", placed->offset, " of the data",
            placed->offset < expected ? ", inside another tensor or its padding" : ", leaving a hole",
            "; expected ", expected);
    in.need(placed->bytes <= data.size() && placed->offset <= data.size() - placed->bytes, "needs the bytes ",
            placed->offset, " to ", placed->offset + placed->bytes, " of the data, which has ", data.size());
    placed->tensor.bytes = data.substr(placed->offset, placed->bytes);
    end = placed->offset + placed->bytes;
    expected = (end + alignment - 1) / alignment * alignment;
  }
  in.set_where("");
  in.need(data.size() <= std::max(end, expected), data.size() - std::min<uint64_t>(end, data.size()),
          " bytes after the last tensor belong to none");
}

void check_magic(Cursor& in, std::string_view file) {
  in.need(file.substr(0, 4) == "GGUF", "does not begin with `GGUF`");
  in.take(4);
  const auto version = in.number<uint32_t>();
  in.need((version & 0xFFFF) != 0 || version == 0, "is a big-endian GGUF file; read are little-endian ones");
  in.need(version == 2 || version == 3, "is GGUF version ", version, ", read are 2 and 3");
}

}  // namespace

GgufHeader parse_gguf_header(std::string_view file, const std::string& path) {
  Cursor in(file, path);
  check_magic(in, file);
  const auto tensors = in.number<uint64_t>(), keys = in.number<uint64_t>();
  in.need(tensors <= kMaxTensors && keys <= kMaxKeys, "claims ", tensors, " tensors and ", keys,
          " keys, allowed: at most ", kMaxTensors, " and ", kMaxKeys);
  GgufHeader header{.keys = GgufKeys(path)};
  take_keys(in, keys, file, header.keys);
  in.set_where("");
  const uint64_t alignment = alignment_of(in, header.keys);
  std::vector<Placed> placed;
  std::set<std::string> names;
  for (uint64_t i = 0; i < tensors; ++i) {
    in.set_where(text("tensor ", i, " of ", tensors, ": "));
    placed.push_back(take_tensor(in, file.size()));
    in.need(names.insert(placed.back().tensor.name).second, "name twice");
  }
  const uint64_t begin = (in.at() + alignment - 1) / alignment * alignment;
  place(in, placed, file.substr(std::min<uint64_t>(begin, file.size())), alignment);
  for (Placed& one : placed) header.tensors.push_back(std::move(one.tensor));
  return header;
}

}  // namespace longreach
