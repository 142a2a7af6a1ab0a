// Reading a JSON file that may be broken or hostile, and taking typed values out of it.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace longreach::data {

// The bytes of a regular file. Throws DataError naming it.
std::string read_whole_file(const std::string& path);

// What makes `content` no JSON, in words: its encoding, a lone surrogate, a number out of range, the place of
// an error of syntax.
std::string json_fault(std::string_view content, const nlohmann::json::exception& error);

// Throws DataError (without the file's name) for what is no JSON, and for values nested deeper than any real
// file's.
nlohmann::json parse_json(const std::string& content);

// object[key] of the wanted type; `fallback` where the key is absent or null. Throws DataError naming
// `where`.key.
bool get_bool(const nlohmann::json& object, const char* key, bool fallback, const std::string& where);
std::string get_string(const nlohmann::json& object, const char* key, const std::string& fallback,
                       const std::string& where);
int64_t get_integer(const nlohmann::json& object, const char* key, int64_t fallback,
                    const std::string& where);

// object[key], which must be there as an object or an array.
const nlohmann::json& get_object(const nlohmann::json& object, const char* key, const std::string& where);
const nlohmann::json& get_array(const nlohmann::json& object, const char* key, const std::string& where);

}  // namespace longreach::data
