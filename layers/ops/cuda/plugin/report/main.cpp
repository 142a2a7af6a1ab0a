// Writes the static table (layers/ops/cuda/static_report.h) at build time:
//   longreach_static_report TABLE FOLDER NAME.ARCH...     reads FOLDER/NAME.ptx and FOLDER/NAME.ARCH.txt
// The plug-in carries the table, so that an installed program can print it without the folder of the build.
#include <fstream>
#include <iostream>
#include <sstream>

#include "core/error.h"
#include "layers/ops/cuda/static_report.h"

namespace {

using namespace longreach;

std::string read_file(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  check<DataError>(in.good() && text.good(), path, ": cannot be read");
  return text.str();
}

void write_report(const std::string& path, const std::string& folder, const std::vector<std::string>& names) {
  std::vector<cuda::StaticRow> all;
  for (const std::string& name : names) {
    const std::string stem = folder + "/" + name.substr(0, name.rfind('.'));
    const auto rows = cuda::join_reports(cuda::parse_ptxas(read_file(folder + "/" + name + ".txt"), name),
                                         cuda::parse_ptx(read_file(stem + ".ptx")), name);
    all.insert(all.end(), rows.begin(), rows.end());
  }
  std::ofstream out(path);
  out << cuda::write_table(all);
  check<DataError>(out.flush().good(), path, ": cannot be written");
}

}  // namespace

int main(int count, char** arguments) {
  const std::vector<std::string> all(arguments + 1, arguments + count);
  try {
    check<UserError>(all.size() > 2, "usage: longreach_static_report TABLE FOLDER NAME.ARCH...");
    write_report(all[0], all[1], {all.begin() + 2, all.end()});
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
