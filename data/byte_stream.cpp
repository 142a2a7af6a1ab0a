// Streams of bytes: plain, gzip (zlib) and Zstandard. Memory is a fixed buffer each, whatever the file
// claims.
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "data/files.h"

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

// One or more gzip members.
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
    while (state_.avail_out == wanted) {
      if (state_.avail_in == 0 && !refill()) break;
      if (between_members_) inflateReset(&state_);
      between_members_ = false;
      const int status = inflate(&state_, Z_NO_FLUSH);
      check<DataError>(status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR, path_,
                       ": is not gzip data or is damaged");
      between_members_ = status == Z_STREAM_END;
    }
    return wanted - state_.avail_out;
  }
  int64_t position() const override { return input_.position(); }

 private:
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
  bool between_members_ = false;
};

class ZstdStream : public ByteStream {
 public:
  explicit ZstdStream(const std::string& path)
      : path_(path), input_(path), buffer_(kBlock), state_(ZSTD_createDCtx(), ZSTD_freeDCtx) {
    check<DataError>(state_ != nullptr, path_, ": zstd cannot be started");
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
      check<DataError>(!ZSTD_isError(left), path_,
                       ": is not zstd data or is damaged: ", ZSTD_getErrorName(left));
      frame_ended_ = left == 0;
      pending_ = to.pos == to.size && left != 0;  // the decoder may hold more than fitted
    }
    return static_cast<int64_t>(to.pos);
  }
  int64_t position() const override { return input_.position(); }

 private:
  std::string path_;
  PlainStream input_;
  std::vector<char> buffer_;
  std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> state_;
  ZSTD_inBuffer from_{};
  bool frame_ended_ = false, pending_ = false;
};

}  // namespace

std::unique_ptr<ByteStream> open_stream(const std::string& path) {
  if (path.ends_with(".gz")) return std::make_unique<GzipStream>(path);
  if (path.ends_with(".zst")) return std::make_unique<ZstdStream>(path);
  return std::make_unique<PlainStream>(path);
}

}  // namespace longreach::data
