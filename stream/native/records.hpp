// Kafka's records of format 2: where their keys, values and headers stand.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace graphtide {

// Fields of n records, in the order of `Field`.
enum Field { kTsDelta, kOffsetDelta, kKeyLength, kKeyAt, kValueLength, kValueAt, kHeaders, kHeadersAt, kFields };
using Records = std::array<std::vector<int64_t>, kFields>;

// Reads `count` records that fill `begin` to `end` of `size` bytes; false if they are not what Kafka's format says.
bool read_records(const uint8_t* data, size_t size, size_t begin, size_t end, int64_t count, Records& records);

}  // namespace graphtide
