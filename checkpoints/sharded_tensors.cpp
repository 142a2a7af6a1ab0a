#include "checkpoints/sharded_tensors.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "checkpoints/checked_file.h"
#include "checkpoints/safetensors_dtype.h"
#include "core/error.h"

namespace longreach {
namespace {

using Json = nlohmann::json;

struct RunPlace {
  std::vector<int64_t> shape;
  int64_t begin = 0;
};

// Nothing of any other text.
std::optional<RunPlace> parse_place(const std::string& written) {
  const Json json = Json::parse(written, nullptr, false);
  const auto is_size = [](const Json& value) {
    return value.is_number_unsigned() && value.get<uint64_t>() < uint64_t{1} << 63;
  };
  if (!json.is_object() || json.size() != 2 || !json.contains("shape") || !json.contains("begin") ||
      !is_size(json["begin"]) || !json["shape"].is_array() ||
      !std::all_of(json["shape"].begin(), json["shape"].end(), is_size))
    return std::nullopt;
  return RunPlace{json["shape"].get<std::vector<int64_t>>(), json["begin"].get<int64_t>()};
}

// Nothing when strides of such a tensor are beyond 2^63.
std::optional<int64_t> elements_of(const std::vector<int64_t>& shape) {
  int64_t others = 1;
  for (const int64_t size : shape)
    if (__builtin_mul_overflow(others, std::max<int64_t>(size, 1), &others)) return std::nullopt;
  return std::count(shape.begin(), shape.end(), 0) > 0 ? 0 : others;
}

RunPlace place_of_run(const SafetensorsFile& file, const std::string& name, const std::string& who) {
  const auto written = file.metadata().find(name);
  check<CheckpointError>(written != file.metadata().end(), who, ": the metadata do not say where it belongs");
  const auto place = parse_place(written->second);
  check<CheckpointError>(place.has_value(), who, ": its place is `", one_line(written->second, 100),
                         "`, expected {\"shape\": [...], \"begin\": N}");
  check<CheckpointError>(file.entries().at(name).shape.size() == 1, who, ": is not one-dimensional");
  return *place;
}

}  // namespace

void write_runs(CheckedFile& file, const std::vector<TensorRun>& runs) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  std::map<std::string, std::string> places;
  for (const TensorRun& run : runs) {
    if (run.values.numel() == 0 && elements_of(run.shape) != 0) continue;
    tensors.emplace_back(run.name, run.values.detach().reshape({-1}));
    places[run.name] = nlohmann::ordered_json{{"shape", run.shape}, {"begin", run.begin}}.dump();
  }
  write_safetensors(file, tensors, places);
}

ShardedTensors::ShardedTensors(const std::vector<std::string>& paths, Parts parts) {
  for (const std::string& path : paths) files_.emplace_back(path);
  for (size_t file = 0; file < files_.size(); ++file) {
    for (const std::string& name : files_[file].names_in_file_order()) add(file, name, parts);
    if (parts == Parts::kWhole) continue;
    for (const auto& [name, place] : files_[file].metadata())
      check<CheckpointError>(files_[file].contains(name), one_line(files_[file].path()),
                             ": the metadata place `", one_line(name, 200),
                             "`, which the file does not hold");
  }
  for (const std::string& name : names_) expect_whole(name, tensors_.at(name));
}

void ShardedTensors::add(size_t number, const std::string& name, Parts parts) {
  const SafetensorsFile& file = files_[number];
  const SafetensorsEntry& stored = file.entries().at(name);
  const std::string who = place(number, name);
  const RunPlace run =
      parts == Parts::kRuns ? place_of_run(file, name, who) : RunPlace{.shape = stored.shape};
  const auto whole = elements_of(run.shape), own = elements_of(stored.shape);
  check<CheckpointError>(whole.has_value() && *own <= *whole && run.begin <= *whole - *own, who, ": its ",
                         own.value_or(0), " elements from ", run.begin, " on are not within the shape ",
                         at::IntArrayRef(run.shape));
  check<CheckpointError>(*own > 0 || *whole == 0, who, ": holds no element of it");
  const auto [at, first] = tensors_.try_emplace(name, Entry{stored.dtype, run.shape, *whole, {}});
  Entry& entry = at->second;
  if (first) names_.push_back(name);
  if (!first) {
    const std::string& other = files_[entry.pieces[0].file].path();
    check<CheckpointError>(entry.shape == run.shape, who, ": has shape ", at::IntArrayRef(run.shape), ", in ",
                           one_line(other), " it has ", at::IntArrayRef(entry.shape));
    check<CheckpointError>(entry.dtype == stored.dtype, who, ": is ", stored.dtype, ", in ", one_line(other),
                           " it is ", entry.dtype);
  }
  entry.pieces.push_back({number, run.begin, run.begin + *own});
}

// Its pieces, sorted, must be the tensor: no element twice, none missing.
void ShardedTensors::expect_whole(const std::string& name, Entry& entry) const {
  std::stable_sort(entry.pieces.begin(), entry.pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
  for (size_t i = 0; i < entry.pieces.size(); ++i) {
    const Piece& piece = entry.pieces[i];
    const int64_t end = i > 0 ? entry.pieces[i - 1].end : 0;
    check<CheckpointError>(i == 0 || (piece.begin >= end && entry.elements > 0), place(piece.file, name),
                           ": elements from ", piece.begin, " on are also in another shard, ",
                           i > 0 ? one_line(files_[entry.pieces[i - 1].file].path()) : "");
    check<CheckpointError>(piece.begin == end, place(piece.file, name), ": begins at element ", piece.begin,
                           "; no shard holds those from ", end, " on");
  }
  const Piece& last = entry.pieces.back();
  check<CheckpointError>(last.end == entry.elements, place(last.file, name), ": ends before element ",
                         last.end, " of ", entry.elements, "; no shard holds the rest");
}

std::string ShardedTensors::place(size_t file, const std::string& name) const {
  return one_line(text(files_[file].path(), ": `", name, "`"));
}

const ShardedTensors::Entry& ShardedTensors::entry(const std::string& name) const {
  const auto found = tensors_.find(name);
  check<CheckpointError>(found != tensors_.end(), "no shard holds `", one_line(name, 200), "`");
  return found->second;
}

at::Tensor ShardedTensors::run(const std::string& name, int64_t begin, int64_t elements) const {
  const Entry& entry = this->entry(name);
  check<CheckpointError>(begin >= 0 && elements >= 0 && begin <= entry.elements - elements, "`",
                         one_line(name, 200), "`: has no ", elements, " elements from ", begin, " on");
  at::Tensor values = at::empty({elements}, at::TensorOptions().dtype(safetensors_dtype(entry.dtype, name)));
  for (const Piece& piece : entry.pieces) {
    const int64_t from = std::max(begin, piece.begin), to = std::min(begin + elements, piece.end);
    if (from < to)
      files_[piece.file].copy_run(name, from - piece.begin, values.narrow(0, from - begin, to - from));
  }
  return values;
}

at::Tensor ShardedTensors::tensor(const std::string& name) const {
  const Entry& entry = this->entry(name);
  return run(name, 0, entry.elements).view(entry.shape);
}

int64_t ShardedTensors::bytes_read() const {
  int64_t bytes = 0;
  for (const SafetensorsFile& file : files_) bytes += file.bytes_read();
  return bytes;
}

}  // namespace longreach
