// The manifest is canonical: it is read by writing it again and comparing, so that no changed bit goes
// unseen.
#include "checkpoints/manifest.h"

#include <xxhash.h>

#include <cinttypes>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/error.h"

namespace longreach {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "longreach-checkpoint";
constexpr int64_t kVersions = 2, kMaxManifest = int64_t{16} << 20;

std::string hexadecimal(uint64_t value) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016" PRIx64, value);
  return digits;
}

// Exactly what hexadecimal() writes; anything else does not survive the comparison of the texts.
uint64_t from_hexadecimal(const std::string& digits) { return std::strtoull(digits.c_str(), nullptr, 16); }

Manifest parse(const Json& json) {
  Manifest manifest;
  manifest.version = json.at("version").get<int64_t>();
  manifest.step = json.at("step").get<int64_t>();
  for (const Json& file : json.at("files"))
    manifest.files.push_back(
        {file.at("name").get<std::string>(),
         {file.at("bytes").get<int64_t>(), from_hexadecimal(file.at("xxh3").get<std::string>())}});
  return manifest;
}

}  // namespace

std::string manifest_text(const Manifest& manifest) {
  Json json = {
      {"format", kFormat}, {"version", manifest.version}, {"step", manifest.step}, {"files", Json::array()}};
  for (const ManifestFile& file : manifest.files)
    json["files"].push_back(
        {{"name", file.name}, {"bytes", file.sum.size}, {"xxh3", hexadecimal(file.sum.xxh3)}});
  const std::string body = json.dump();
  json["xxh3"] = hexadecimal(XXH3_64bits(body.data(), body.size()));
  return json.dump(1) + "\n";
}

bool is_safe_name(const std::string& name) {
  if (name.empty() || name.front() == '/' || name.back() == '/' || one_line(name, 255) != name) return false;
  std::istringstream parts(name);
  for (std::string part; std::getline(parts, part, '/');)
    if (part.empty() || part == "." || part == "..") return false;
  return true;
}

Manifest read_manifest(const std::string& folder) {
  const std::string path = folder + "/" + kManifestName;
  const std::string contents = read_text_file(path, kMaxManifest);
  Manifest manifest;
  try {
    const Json json = Json::parse(contents);
    const int64_t version = json.at("version").get<int64_t>();
    if (json.at("format").get<std::string>() == kFormat && (version < 1 || version > kVersions))
      throw CheckpointError(
          one_line(text(path, ": format version ", version, ", this program reads 1 to ", kVersions)));
    manifest = parse(json);
  } catch (const nlohmann::json::exception&) {
    throw CheckpointError(one_line(text(path, ": is damaged (not a manifest)")));
  }
  std::set<std::string> names;
  for (const ManifestFile& file : manifest.files)
    check<CheckpointError>(is_safe_name(file.name) && names.insert(file.name).second, one_line(path),
                           ": file name `", one_line(file.name, 100), "` is not allowed");
  check<CheckpointError>(manifest_text(manifest) == contents, one_line(path),
                         ": is damaged (its checksum does not hold)");
  return manifest;
}

}  // namespace longreach
