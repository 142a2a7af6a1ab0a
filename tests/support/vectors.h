// Where reference vectors lie: tests/**/vectors/NAME/*.safetensors, beside the tests of what they are about.
#pragma once
#include <string>
#include <vector>

namespace longreach::test {

// The folder of one name, such as "retention". Throws DataError when there is none.
std::string vector_folder(const std::string& name);
// The path of "retention/plain".
std::string vector_path(const std::string& file);
// All files of one name, or of all names, in a fixed order.
std::vector<std::string> vector_files(const std::string& name = "");

}  // namespace longreach::test
