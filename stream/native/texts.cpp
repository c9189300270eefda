#include "texts.hpp"

#include <algorithm>
#include <cstring>
#include <random>

namespace graphtide {
namespace {

constexpr uint64_t kBlock = 32;

uint64_t word_at(const char* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

uint64_t mixed(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t hash_of(std::string_view text, uint64_t seed) {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15, kOther = 0xD6E8FEB86659FD93;
  uint64_t hash = seed ^ text.size();
  const char* at = text.data();
  size_t left = text.size();
  for (; left > 8; left -= 8, at += 8) hash = mixed(hash ^ word_at(at), kOdd);
  uint64_t tail = 0;
  if (text.size() >= 8) {
    tail = word_at(text.data() + text.size() - 8);
  } else {
    std::memcpy(&tail, at, left);
  }
  return mixed(hash ^ tail, kOther);
}

// Whether bytes are UTF-8 text, by the ranges of table 3-7 of the Unicode standard.
bool is_utf8(const unsigned char* at, const unsigned char* end) {
  while (at < end) {
    const unsigned char lead = *at++;
    if (lead < 0x80) continue;
    int more;
    unsigned char low = 0x80, high = 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF) {
      more = 1;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
      more = 2;
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      more = 3;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    } else {
      return false;
    }
    for (; more > 0; --more, ++at, low = 0x80, high = 0xBF) {
      if (at == end || *at < low || *at > high) return false;
    }
  }
  return true;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// High bits of the bytes of a word that are a quote, a backslash, a control character or not ASCII.
uint64_t special(uint64_t word) {
  constexpr uint64_t kOnes = 0x0101010101010101, kHigh = 0x8080808080808080;
  const auto is_zero = [](uint64_t w) { return (w - kOnes) & ~w; };  // false hits only above a true one
  const uint64_t control = (word - kOnes * 0x20) & ~word;
  return (is_zero(word ^ (kOnes * '"')) | is_zero(word ^ (kOnes * '\\')) | control | word) & kHigh;
}

// Returns the end of a text that begins at `at`, where its quote stands; nullptr where it is not plain.
const char* text_end(const char* at, const char* end) {
  const char* const begin = at;
  bool is_ascii = true;
  for (;;) {
    while (end - at >= 8) {
      const uint64_t hit = special(word_at(at));
      if (hit) {
        at += __builtin_ctzll(hit) / 8;
        break;
      }
      at += 8;
    }
    if (at == end) return nullptr;
    const auto c = static_cast<unsigned char>(*at);
    if (c == '"') break;
    if (c == '\\' || c < 0x20) return nullptr;
    is_ascii &= c < 0x80;
    ++at;
  }
  if (!is_ascii && !is_utf8(reinterpret_cast<const unsigned char*>(begin), reinterpret_cast<const unsigned char*>(at))) {
    return nullptr;
  }
  return at;
}

int two_digits(const char* at) { return (at[0] - '0') * 10 + (at[1] - '0'); }

bool one_iso_us(std::string_view text, int64_t& ts_us) {
  constexpr size_t kSeconds = 19;
  static const int kDays[] = {0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  static const int kBefore[] = {0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
  if (text.size() < kSeconds) return false;
  const char* at = text.data();
  for (const int place : {0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18}) {
    if (!is_digit(at[place])) return false;
  }
  if (at[4] != '-' || at[7] != '-' || at[13] != ':' || at[16] != ':' || (at[10] != 'T' && at[10] != ' ')) return false;
  const int year = two_digits(at) * 100 + two_digits(at + 2), month = two_digits(at + 5), day = two_digits(at + 8);
  const int hour = two_digits(at + 11), minute = two_digits(at + 14), second = two_digits(at + 17);
  if (year < 1 || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59) return false;
  const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
  if (day < 1 || day > kDays[month] + (leap && month == 2)) return false;
  std::string_view rest = text.substr(kSeconds);
  int64_t fraction = 0;
  if (!rest.empty() && rest.front() == '.') {
    size_t digits = 0;
    for (rest.remove_prefix(1); digits < rest.size() && is_digit(rest[digits]); ++digits) {
      if (digits == 6) return false;
      fraction = fraction * 10 + (rest[digits] - '0');
    }
    if (digits == 0) return false;
    rest.remove_prefix(digits);
    for (; digits < 6; ++digits) fraction *= 10;
  }
  if (!rest.empty() && rest != "Z" && rest != "+00:00") return false;
  const int64_t before = year - 1;
  const int64_t days = before * 365 + before / 4 - before / 100 + before / 400 - 719162 + kBefore[month] +
                       (leap && month > 2) + day - 1;
  ts_us = days * 86400000000 + ((hour * 60 + minute) * 60 + second) * int64_t{1000000} + fraction;
  return true;
}

}  // namespace

bool scan(const char* data, int64_t begin, int64_t end, const Template& how, Found& found) {
  const char* at = data + begin;
  const char* const stop = data + end;
  const size_t fields = how.fields();
  for (;;) {
    for (size_t field = 0; field <= fields; ++field) {
      const std::string& literal = how.literals[field];
      if (static_cast<size_t>(stop - at) < literal.size() || std::memcmp(at, literal.data(), literal.size()) != 0) {
        return false;
      }
      at += literal.size();
      if (field == fields) break;
      const char* value_end = at;
      if (how.is_number[field]) {
        while (value_end < stop && is_digit(*value_end)) ++value_end;
        if (value_end == at || (*at == '0' && value_end - at > 1)) return false;
      } else {
        value_end = text_end(at, stop);
        if (value_end == nullptr) return false;
      }
      found.begin[field].push_back(at - data);
      found.length[field].push_back(value_end - at);
      at = value_end;
    }
    if (at == stop) return true;
    if (*at++ != '\n') return false;
  }
}

bool whole_numbers(const Column& texts, int64_t* numbers) {
  for (size_t row = 0; row < texts.n; ++row) {
    const std::string_view text = texts[row];
    if (text.empty() || text.size() > 19 || (text.front() == '0' && text.size() > 1)) return false;
    uint64_t number = 0;  // nineteen digits fit
    for (const char c : text) {
      if (!is_digit(c)) return false;
      number = number * 10 + static_cast<uint64_t>(c - '0');
    }
    if (number > INT64_MAX) return false;
    numbers[row] = static_cast<int64_t>(number);
  }
  return true;
}

bool iso_us(const Column& texts, int64_t* ts_us) {
  for (size_t row = 0; row < texts.n; ++row) {
    if (!one_iso_us(texts[row], ts_us[row])) return false;
  }
  return true;
}

// Seeded, so that nobody can choose names that share a slot.
TextNumbers::TextNumbers() : seed_((uint64_t{std::random_device{}()} << 32) | std::random_device{}()), slots_(1024) {}

void TextNumbers::clear() {
  entries_.clear();
  arena_.clear();
  std::fill(slots_.begin(), slots_.end(), Slot{0, 0});
}

bool TextNumbers::holds(uint32_t entry, uint64_t hash, std::string_view text) const {
  const Entry& held = entries_[entry - 1];
  return held.hash == hash && held.length == text.size() &&
         std::memcmp(arena_.data() + held.begin, text.data(), text.size()) == 0;
}

void TextNumbers::number(const Column& texts, int64_t* numbers, std::vector<int64_t>& first_rows) {
  uint64_t hashes[kBlock];
  for (size_t block = 0; block < texts.n; block += kBlock) {
    const size_t rows = std::min<size_t>(kBlock, texts.n - block);
    if (entries_.size() + rows > slots_.size() / 2) grow();
    const uint64_t mask = slots_.size() - 1;
    // All slots of a block are on their way before the first is looked at.
    for (size_t row = 0; row < rows; ++row) {
      hashes[row] = hash_of(texts[block + row], seed_);
      __builtin_prefetch(&slots_[hashes[row] & mask]);
    }
    for (size_t row = 0; row < rows; ++row) {
      const std::string_view text = texts[block + row];
      const uint64_t hash = hashes[row];
      const auto tag = static_cast<uint32_t>(hash >> 32);
      uint64_t at = hash & mask;
      while (slots_[at].entry != 0 && !(slots_[at].tag == tag && holds(slots_[at].entry, hash, text))) {
        at = (at + 1) & mask;
      }
      if (slots_[at].entry == 0) {
        entries_.push_back({hash, arena_.size(), text.size()});
        arena_.append(text);
        slots_[at] = {tag, static_cast<uint32_t>(entries_.size())};
        first_rows.push_back(static_cast<int64_t>(block + row));
      }
      numbers[block + row] = static_cast<int64_t>(slots_[at].entry) - 1;
    }
  }
}

void TextNumbers::grow() {
  std::vector<Slot> slots(slots_.size() * 2, Slot{0, 0});
  const uint64_t mask = slots.size() - 1;
  for (size_t entry = 0; entry < entries_.size(); ++entry) {
    uint64_t at = entries_[entry].hash & mask;
    while (slots[at].entry != 0) at = (at + 1) & mask;
    slots[at] = {static_cast<uint32_t>(entries_[entry].hash >> 32), static_cast<uint32_t>(entry + 1)};
  }
  slots_ = std::move(slots);
}

}  // namespace graphtide
