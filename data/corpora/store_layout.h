// What a token store says about itself and where its data lie, without a byte of the data.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/corpora/hdf5.h"
#include "data/corpora/token_store.h"

namespace longreach::data {

struct ColumnLayout {
  int64_t length = 0, chunk = 1, element_size = 0;  // in elements, elements, bytes
  bool compressed = false;
  std::vector<h5::Chunk> chunks;  // in order; none where there are more than h5::kMostListedChunks

  int64_t num_chunks() const { return (length + chunk - 1) / chunk; }
};

struct StoreLayout {
  StoreAbout about;
  uint64_t offsets_checksum = 0;
  ColumnLayout tokens, checksums, offsets, mask, mask_checksums;
};

// Reads it in a forked copy of the process: a file that crashes the HDF5 library is a DamagedFile like any
// other. The copy touches all metadata and no data, so that a large store costs little. Checked: that the
// columns belong to one another, and that the file can hold what they claim. Every error begins with the
// path.
StoreLayout read_layout(const std::string& path, int64_t file_bytes);

}  // namespace longreach::data
