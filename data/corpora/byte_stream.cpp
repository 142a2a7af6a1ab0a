// Plain, gzip (zlib) and Zstandard. Memory is a fixed buffer each, and with Zstandard the
// window that the file asks for, up to 2 GiB, as far as it is filled.
#include "data/corpora/byte_stream.h"

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>

#include "core/error.h"
#include "data/common/files.h"
#include "data/corpora/file_kind.h"

namespace longreach::data {
namespace {

constexpr int64_t kBlock = 1 << 17;

class PlainStream : public ByteStream {
 public:
  explicit PlainStream(const std::string& path) : file_(path) {}
  int64_t read(char* out, int64_t bytes) override {
    bytes = std::min(bytes, file_.size() - at_);
    file_.read(at_, out, bytes);
    at_ += bytes;
    return bytes;
  }
  int64_t position() const override { return at_; }

 private:
  PositionedFile file_;
  int64_t at_ = 0;
};

// One or more gzip members, and zeros behind the last, as tapes and disks fill their blocks.
class GzipStream : public ByteStream {
 public:
  explicit GzipStream(const std::string& path) : path_(path), input_(path), buffer_(kBlock) {
    check<DataError>(inflateInit2(&state_, 16 + MAX_WBITS) == Z_OK, path_, ": gzip cannot be started");
  }
  ~GzipStream() override { inflateEnd(&state_); }
  int64_t read(char* out, int64_t bytes) override {
    state_.next_out = reinterpret_cast<Bytef*>(out);
    state_.avail_out = static_cast<uInt>(std::min<int64_t>(bytes, 1 << 30));
    const uInt wanted = state_.avail_out;
    while (wanted > 0 && state_.avail_out == wanted) {
      if (state_.avail_in == 0 && !refill()) break;
      if (between_members_ && !next_member()) continue;
      const int status = inflate(&state_, Z_NO_FLUSH);
      check<DataError>(status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR, path_,
                       ": its gzip data is damaged before byte ", input_.position());
      between_members_ = status == Z_STREAM_END;
    }
    return wanted - state_.avail_out;
  }
  int64_t position() const override { return input_.position(); }

 private:
  // False when there were but zeros.
  bool next_member() {
    for (; state_.avail_in > 0 && *state_.next_in == 0; ++state_.next_in, --state_.avail_in) padded_ = true;
    if (state_.avail_in == 0) return false;
    check<DataError>(!padded_ && *state_.next_in == 0x1F, path_,
                     ": bytes that are no gzip data follow the gzip data before byte ", input_.position());
    inflateReset(&state_);
    between_members_ = false;
    return true;
  }
  bool refill() {
    const int64_t got = input_.read(buffer_.data(), kBlock);
    check<DataError>(got > 0 || between_members_, path_, ": gzip data cut short");
    state_.next_in = reinterpret_cast<Bytef*>(buffer_.data());
    state_.avail_in = static_cast<uInt>(got);
    return got > 0;
  }

  std::string path_;
  PlainStream input_;
  std::vector<char> buffer_;
  z_stream state_{};
  bool between_members_ = false, padded_ = false;
};

class ZstdStream : public ByteStream {
 public:
  explicit ZstdStream(const std::string& path)
      : path_(path), input_(path), buffer_(kBlock), state_(ZSTD_createDCtx(), ZSTD_freeDCtx) {
    check<DataError>(state_ != nullptr, path_, ": zstd cannot be started");
    // The longest window that the library has, `zstd --long=31`; it is memory only where it is written to.
    ZSTD_DCtx_setParameter(state_.get(), ZSTD_d_windowLogMax,
                           ZSTD_dParam_getBounds(ZSTD_d_windowLogMax).upperBound);
  }
  int64_t read(char* out, int64_t bytes) override {
    ZSTD_outBuffer to{out, static_cast<size_t>(bytes), 0};
    while (to.pos == 0 && bytes > 0) {
      if (from_.pos == from_.size && !pending_) {
        const int64_t got = input_.read(buffer_.data(), kBlock);
        check<DataError>(got > 0 || frame_ended_, path_, ": zstd data cut short");
        if (got == 0) break;
        from_ = {buffer_.data(), static_cast<size_t>(got), 0};
      }
      const size_t left = ZSTD_decompressStream(state_.get(), &to, &from_);
      if (ZSTD_isError(left)) fail(left);
      frame_ended_ = left == 0;
      pending_ = to.pos == to.size && left != 0;  // the decoder may hold more than fitted
    }
    return static_cast<int64_t>(to.pos);
  }
  int64_t position() const override { return input_.position(); }

 private:
  [[noreturn]] void fail(size_t code) const {
    const ZSTD_ErrorCode error = ZSTD_getErrorCode(code);
    const bool window = error == ZSTD_error_frameParameter_windowTooLarge;
    check<DataError>(!window, path_,
                     ": was packed with a window of more than 2 GiB; pack it with `zstd --long=31` at most");
    check<DataError>(error != ZSTD_error_memory_allocation, path_,
                     ": there is no memory for the window that it was packed with (up to 2 GiB); pack it "
                     "with a shorter one");
    throw DataError(text(path_, ": its zstd data is damaged before byte ", input_.position(), ": ",
                         ZSTD_getErrorName(code)));
  }

  std::string path_;
  PlainStream input_;
  std::vector<char> buffer_;
  std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> state_;
  ZSTD_inBuffer from_{};
  bool frame_ended_ = false, pending_ = false;
};

// What was unpacked, when it is no packed file in its turn.
class UnpackedStream : public ByteStream {
 public:
  UnpackedStream(const std::string& path, std::unique_ptr<ByteStream> stream)
      : stream_(std::move(stream)), head_(kKindBytes, '\0') {
    size_t size = 0;
    for (int64_t got = 1; got > 0 && size < kKindBytes; size += static_cast<size_t>(got))
      got = stream_->read(head_.data() + size, static_cast<int64_t>(kKindBytes - size));
    head_.resize(size);
    const ForeignKind kind = foreign_kind(head_);
    check<DataError>(kind.is.empty(), path, ": what is packed in it is ", kind.is, "; unpack it first");
    check<DataError>(packing_of(head_) == Packing::none, path, ": is packed twice; unpack it once");
  }
  int64_t read(char* out, int64_t bytes) override {
    const int64_t ready = std::min(bytes, static_cast<int64_t>(head_.size()) - at_);
    if (ready <= 0) return stream_->read(out, bytes);
    std::copy_n(head_.data() + at_, ready, out);
    at_ += ready;
    return ready;
  }
  int64_t position() const override { return stream_->position(); }

 private:
  std::unique_ptr<ByteStream> stream_;
  std::string head_;
  int64_t at_ = 0;
};

}  // namespace

std::unique_ptr<ByteStream> open_stream(const std::string& path) {
  std::string head(kKindBytes, '\0');
  head.resize(static_cast<size_t>(PlainStream(path).read(head.data(), kKindBytes)));
  const ForeignKind kind = foreign_kind(head);
  check<DataError>(kind.is.empty(), path, ": is ", kind.is, ", which is not read; ", advice_on(kind, path));
  const Packing packing = packing_of(head);
  if (packing == Packing::gzip)
    return std::make_unique<UnpackedStream>(path, std::make_unique<GzipStream>(path));
  if (packing == Packing::zstd)
    return std::make_unique<UnpackedStream>(path, std::make_unique<ZstdStream>(path));
  const std::string_view ending = packed_ending(path);
  check<DataError>(ending.empty(), path, ": its name ends in ", ending, ", but it holds no such data");
  return std::make_unique<PlainStream>(path);
}

std::string read_whole(const std::string& path) {
  const auto stream = open_stream(path);
  std::string contents, block(1 << 20, '\0');
  while (const int64_t got = stream->read(block.data(), static_cast<int64_t>(block.size())))
    contents.append(block, 0, static_cast<size_t>(got));
  return contents;
}

LineReader::LineReader(const std::string& path, int64_t limit)
    : path_(path), stream_(open_stream(path)), limit_(limit) {}

bool LineReader::next(std::string& line) {
  size_t searched = at_;
  while (true) {
    const size_t end = buffer_.find('\n', searched);
    if (end != std::string::npos || (ended_ && at_ < buffer_.size())) {
      const size_t stop = std::min(end, buffer_.size());
      line.assign(buffer_, at_, stop - at_);
      at_ = std::min(stop + 1, buffer_.size());
      ++number_;
      return true;
    }
    if (ended_) return false;
    buffer_.erase(0, at_);
    at_ = 0;
    searched = buffer_.size();
    check<DataError>(static_cast<int64_t>(searched) <= limit_, path_, ":", number_ + 1,
                     ": line of more than ", limit_, " bytes");
    constexpr int64_t kBlock = 1 << 18;
    buffer_.resize(searched + kBlock);
    const int64_t got = stream_->read(buffer_.data() + searched, kBlock);
    buffer_.resize(searched + static_cast<size_t>(got));
    ended_ = got == 0;
  }
}

std::string_view packed_ending(const std::string& path) {
  for (const std::string_view suffix : {".gz", ".zst", ".xz", ".bz2", ".lz4"}) {
    if (path.size() < suffix.size()) continue;
    const std::string_view end = std::string_view(path).substr(path.size() - suffix.size());
    const auto same = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; };
    if (std::equal(end.begin(), end.end(), suffix.begin(), same)) return suffix;
  }
  return {};
}

std::string plain_name(const std::string& path) {
  std::string name = std::filesystem::path(path).filename().string();
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  name.resize(name.size() - packed_ending(name).size());
  return name;
}

}  // namespace longreach::data
