#include "records.hpp"

namespace graphtide {
namespace {

// Reads a zigzag varint and moves behind it; false beyond `size`, and for one of more than 64 bits.
bool varint(const uint8_t* data, size_t size, size_t& at, int64_t& value) {
  uint64_t bits = 0;
  for (int shift = 0; shift <= 63; shift += 7) {
    if (at >= size) return false;
    const uint8_t byte = data[at++];
    bits |= static_cast<uint64_t>(byte & 127) << shift;
    if (byte < 128) {
      value = static_cast<int64_t>(bits >> 1) ^ -static_cast<int64_t>(bits & 1);
      return true;
    }
  }
  return false;
}

// Reads a length of bytes, -1 for none, and where they stand, and moves behind them.
bool bytes(const uint8_t* data, size_t size, size_t& at, int64_t& length, int64_t& begin) {
  if (!varint(data, size, at, length) || length < -1) return false;
  begin = static_cast<int64_t>(at);
  if (length <= 0) return true;
  if (static_cast<uint64_t>(length) > size - at) return false;
  at += static_cast<size_t>(length);
  return true;
}

}  // namespace

bool read_records(const uint8_t* data, size_t size, size_t begin, size_t end, int64_t count, Records& records) {
  size_t at = begin;
  for (int64_t number = 0; number < count; ++number) {
    int64_t length;
    if (!varint(data, size, at, length) || length < 0 || at > end || static_cast<uint64_t>(length) > end - at) return false;
    const size_t next = at + static_cast<size_t>(length);
    ++at;  // one byte of attributes, unused
    std::array<int64_t, kFields> found;
    if (!varint(data, size, at, found[kTsDelta]) || !varint(data, size, at, found[kOffsetDelta]) ||
        !bytes(data, size, at, found[kKeyLength], found[kKeyAt]) ||
        !bytes(data, size, at, found[kValueLength], found[kValueAt]) || !varint(data, size, at, found[kHeaders]) ||
        found[kHeaders] < 0) {
      return false;
    }
    found[kHeadersAt] = static_cast<int64_t>(at);
    for (size_t field = 0; field < kFields; ++field) records[field].push_back(found[field]);
    at = next;
  }
  return at == end;
}

}  // namespace graphtide
