// Metadata of reference-vector files.
#include "train/verify/vector_file.h"

#include <cmath>
#include <sstream>

namespace longreach::verify {
namespace {

using Axes = std::vector<std::string>;

std::vector<std::string> split(const std::string& words, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(words);
  for (std::string part; std::getline(in, part, separator);) {
    const size_t first = part.find_first_not_of(' '), last = part.find_last_not_of(' ');
    parts.push_back(first == std::string::npos ? "" : part.substr(first, last - first + 1));
  }
  return parts;
}

// The words of "B T H D (already rotated)" before the remark; empty when they do not look like axes.
Axes parse_axes(const std::string& words) {
  Axes axes;
  for (const std::string& word : split(words.substr(0, words.find('(')), ' ')) {
    if (word.empty()) continue;
    if (std::isupper(static_cast<unsigned char>(word[0])) == 0 &&
        std::isdigit(static_cast<unsigned char>(word[0])) == 0)
      return {};
    axes.push_back(word);
  }
  return axes;
}

void add_axes(std::map<std::string, Axes>& all, const std::string& names, const std::string& words) {
  const Axes axes = parse_axes(words);
  if (axes.empty()) return;
  for (const std::string& name : split(names.substr(0, names.find('(')), ',')) all.emplace(name, axes);
}

std::map<std::string, Axes> parse_layout(const std::string& layout) {
  std::map<std::string, Axes> all;
  const nlohmann::json json = nlohmann::json::parse(layout, nullptr, false);
  if (json.is_object()) {
    for (const auto& [names, words] : json.items())
      if (words.is_string()) add_axes(all, names, words.get<std::string>());
    return all;
  }
  for (const std::string& clause : split(layout, ';')) {
    const size_t colon = clause.find(':');
    add_axes(all, colon == std::string::npos ? "all" : clause.substr(0, colon),
             colon == std::string::npos ? clause : clause.substr(colon + 1));
  }
  return all;
}

}  // namespace

VectorFile::VectorFile(const std::string& path) : file_(path), mechanism_(note("mechanism")) {
  check<DataError>(!mechanism_.empty(), one_line(path),
                   ": its metadata name no mechanism; is it a reference-vector file?");
  config_ = nlohmann::json::parse(note("config").empty() ? "{}" : note("config"), nullptr, false);
  check<DataError>(config_.is_object(), one_line(path), ": metadata `config` is not a JSON object");
  axes_ = parse_layout(note("layout"));
}

std::string VectorFile::note(const std::string& key) const {
  const auto found = file_.metadata().find(key);
  return found == file_.metadata().end() ? std::string() : found->second;
}

std::vector<std::string> VectorFile::names(std::string_view prefix) const {
  std::vector<std::string> found;
  for (const auto& [name, entry] : file_.entries())
    if (name.starts_with(prefix)) found.push_back(name.substr(prefix.size()));
  return found;
}

std::vector<std::string> VectorFile::axes(const std::string& name) const {
  for (const std::string& key : {name, std::string("all")})
    if (const auto found = axes_.find(key); found != axes_.end()) return found->second;
  return {};
}

bool VectorFile::heads_first(const std::string& name) const {
  const Axes found = axes(name);
  return found.size() == 4 && found[1].starts_with("H") && found[2] == "T";
}

template <class T>
T VectorFile::get(const char* key, bool valid) const {
  if (!valid)
    throw UnknownCase(
        one_line(text(path(), ": config of `", mechanism_, "`: key `", key, "` is missing or unknown")));
  return config_[key].get<T>();
}

int64_t VectorFile::integer(const char* key) const {
  return get<int64_t>(key, config_.contains(key) && config_[key].is_number_integer());
}

int64_t VectorFile::integer_or(const char* key, int64_t otherwise) const {
  return config_.contains(key) ? integer(key) : otherwise;
}

bool VectorFile::truth_or(const char* key, bool otherwise) const {
  return config_.contains(key) ? get<bool>(key, config_[key].is_boolean()) : otherwise;
}

double VectorFile::real(const char* key) const {
  return get<double>(key, config_.contains(key) && config_[key].is_number());
}

std::string VectorFile::word(const char* key) const {
  return get<std::string>(key, config_.contains(key) && config_[key].is_string());
}

std::vector<int64_t> VectorFile::integers(const char* key) const {
  bool valid = config_.contains(key) && config_[key].is_array();
  if (valid)
    for (const auto& item : config_[key]) valid = valid && item.is_number_integer();
  return get<std::vector<int64_t>>(key, valid);
}

double VectorFile::scale(int64_t head_dim, double otherwise) const {
  if (!config_.contains("scale") || config_["scale"].is_null()) return otherwise;
  if (config_["scale"].is_string()) {
    const std::string formula = word("scale");
    get<std::string>("scale", formula == "D^-0.5" || formula == "K^-0.5");
    return 1.0 / std::sqrt(static_cast<double>(head_dim));
  }
  return real("scale");
}

double VectorFile::scale(int64_t head_dim) const {
  return scale(head_dim, 1.0 / std::sqrt(static_cast<double>(head_dim)));
}

}  // namespace longreach::verify
