// Writing a file of torch.save: what it would write for a dict of tensors, without its 64-bit sizes.
#include <c10/util/ArrayRef.h>
#include <zlib.h>

#include <limits>
#include <set>

#include "checkpoints/checked_file.h"
#include "checkpoints/formats/torch_file.h"
#include "core/error.h"
#include "core/utf8.h"

namespace longreach {
namespace {

constexpr const char* kRoot = "archive/";
constexpr size_t kAlignment = 64;  // of the bytes of entries, as torch.save aligns them

template <class Number>
void append(std::string& out, Number number) {
  out.append(reinterpret_cast<const char*>(&number), sizeof number);  // little-endian, as this machine
}

// An archive of entries that are stored as they are.
class ZipWriter {
 public:
  explicit ZipWriter(const std::string& path) : file_(path) {}

  void add(const std::string& entry, const void* data, size_t bytes) {
    const std::string name = kRoot + entry;
    const size_t begin = at_ + kLocalBytes + name.size() + kExtraBytes,
                 padding = (kAlignment - begin % kAlignment) % kAlignment;
    check<CheckpointError>(begin + padding + bytes <= std::numeric_limits<uint32_t>::max(), file_.path(),
                           ": 4 GiB and more are not written in this format; safetensors has no such limit");
    const auto crc = static_cast<uint32_t>(::crc32_z(0, static_cast<const Bytef*>(data), bytes));
    std::string fields;  // those that the entry and the directory share
    append<uint16_t>(fields, 0);
    append<uint16_t>(fields, kUtf8);
    append<uint16_t>(fields, 0);           // stored
    append<uint32_t>(fields, 0x00210000);  // 1980-01-01
    append(fields, crc);
    append(fields, static_cast<uint32_t>(bytes));
    append(fields, static_cast<uint32_t>(bytes));
    append(fields, static_cast<uint16_t>(name.size()));
    std::string local;
    append<uint32_t>(local, 0x04034b50);
    local += fields;
    append(local, static_cast<uint16_t>(kExtraBytes + padding));
    local += name + "FB";  // torch.save's name of the padding
    append(local, static_cast<uint16_t>(padding));
    local.append(padding, 'Z');
    append<uint32_t>(directory_, 0x02014b50);
    append<uint16_t>(directory_, 0);
    directory_ += fields + std::string(12, '\0');
    append(directory_, static_cast<uint32_t>(at_));
    directory_ += name;
    ++entries_;
    write(local.data(), local.size());
    write(data, bytes);
  }
  void add(const std::string& entry, std::string_view text) { add(entry, text.data(), text.size()); }

  void finish() {
    check<CheckpointError>(entries_ <= std::numeric_limits<uint16_t>::max(), file_.path(), ": ", entries_,
                           " entries; this format has at most 65535");
    std::string end;
    append<uint32_t>(end, 0x06054b50);
    append<uint32_t>(end, 0);
    append(end, static_cast<uint16_t>(entries_));
    append(end, static_cast<uint16_t>(entries_));
    append(end, static_cast<uint32_t>(directory_.size()));
    append(end, static_cast<uint32_t>(at_));
    append<uint16_t>(end, 0);
    write(directory_.data(), directory_.size());
    write(end.data(), end.size());
    file_.finish();
  }

 private:
  static constexpr size_t kLocalBytes = 30, kExtraBytes = 4;
  static constexpr uint16_t kUtf8 = 1 << 11;

  void write(const void* data, size_t bytes) {
    file_.write(data, bytes);
    at_ += bytes;
  }

  CheckedFile file_;
  std::string directory_;
  size_t at_ = 0, entries_ = 0;
};

const char* storage_class(at::ScalarType dtype, const std::string& who) {
  switch (dtype) {
    case at::kDouble:
      return "DoubleStorage";
    case at::kFloat:
      return "FloatStorage";
    case at::kHalf:
      return "HalfStorage";
    case at::kBFloat16:
      return "BFloat16Storage";
    case at::kLong:
      return "LongStorage";
    case at::kInt:
      return "IntStorage";
    case at::kShort:
      return "ShortStorage";
    case at::kChar:
      return "CharStorage";
    case at::kByte:
      return "ByteStorage";
    case at::kBool:
      return "BoolStorage";
    default:
      throw CheckpointError(
          one_line(text(who, ": dtype ", c10::toString(dtype), " cannot be stored in a .pth")));
  }
}

void pickle_text(std::string& out, std::string_view value) {
  out += 'X';
  append(out, static_cast<uint32_t>(value.size()));
  out += value;
}

void pickle_number(std::string& out, int64_t value) {
  out += "\x8a\x08";  // 8 bytes
  append(out, value);
}

void pickle_numbers(std::string& out, at::IntArrayRef values) {
  out += '(';
  for (const int64_t value : values) pickle_number(out, value);
  out += 't';
}

// _rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)
void pickle_tensor(std::string& out, const at::Tensor& tensor, size_t key, const std::string& who) {
  out += "ctorch._utils\n_rebuild_tensor_v2\n((";
  pickle_text(out, "storage");
  out += text("ctorch\n", storage_class(tensor.scalar_type(), who), "\n");
  pickle_text(out, std::to_string(key));
  pickle_text(out, "cpu");
  pickle_number(out, tensor.numel());
  out += "tQ";
  pickle_number(out, 0);
  pickle_numbers(out, tensor.sizes());
  pickle_numbers(out, tensor.strides());
  out +=
      "\x89"
      "ccollections\nOrderedDict\n)RtR";
}

}  // namespace

void write_torch_file(const std::string& path,
                      const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  ZipWriter file(path);
  std::vector<at::Tensor> whole;
  std::set<std::string> names;
  std::string pickle = "\x80\x02}(";
  for (const auto& [name, tensor] : tensors) {
    const std::string who = one_line(text(path, ": `", name, "`"));
    check<CheckpointError>(names.insert(name).second && is_utf8(name), who, ": name twice or no UTF-8");
    whole.push_back(tensor.detach().cpu().contiguous());
    pickle_text(pickle, name);
    pickle_tensor(pickle, whole.back(), whole.size() - 1, who);
  }
  file.add("data.pkl", pickle + "u.");
  file.add("byteorder", "little");
  for (size_t i = 0; i < whole.size(); ++i)
    file.add("data/" + std::to_string(i), whole[i].const_data_ptr(), whole[i].nbytes());
  file.add("version", "3\n");
  file.finish();
}

}  // namespace longreach
