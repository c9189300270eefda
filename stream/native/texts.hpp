// Columns of texts in a buffer: found in JSON objects that are written alike, numbered, and read as numbers and times.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace graphtide {

// n texts of a buffer: where each begins, and its bytes.
struct Column {
  const char* data;
  const int64_t* begin;
  const int64_t* length;
  size_t n;

  std::string_view operator[](size_t row) const { return {data + begin[row], static_cast<size_t>(length[row])}; }
};

// How an object is written: literals[i] stands before value i, the last one behind the last value.
struct Template {
  std::vector<std::string> literals;
  std::vector<bool> is_number;

  size_t fields() const { return is_number.size(); }
};

// What was found in objects: by field one after the other, where the value begins and its bytes.
struct Found {
  std::vector<std::vector<int64_t>> begin, length;
};

// Reads the objects of a piece, one a line, into `found`; false if one is written in another way.
bool scan(const char* data, int64_t begin, int64_t end, const Template& how, Found& found);

// Whole numbers as JSON writes them, below 2**63; false if a text is none.
bool whole_numbers(const Column& texts, int64_t* numbers);

// Times YYYY-MM-DD[T ]HH:MM:SS[.f…] with nothing, Z or +00:00 behind, in microseconds since the epoch; 1 to 6 digits of
// a second. False if a text is none.
bool iso_us(const Column& texts, int64_t* ts_us);

// Distinct texts, numbered in the order of their first appearance.
class TextNumbers {
 public:
  TextNumbers();

  // Numbers each text; rows whose text was not known are added to `first_rows`, in order.
  void number(const Column& texts, int64_t* numbers, std::vector<int64_t>& first_rows);
  void clear();
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    uint64_t hash;
    uint64_t begin;
    uint64_t length;
  };
  struct Slot {
    uint32_t tag;    // upper half of the hash
    uint32_t entry;  // counted from 1; 0 is free
  };

  bool holds(uint32_t entry, uint64_t hash, std::string_view text) const;
  void grow();

  uint64_t seed_;
  std::vector<Entry> entries_;
  std::string arena_;
  std::vector<Slot> slots_;
};

}  // namespace graphtide
