// The module `stream.native._native`: everything here works without the interpreter's lock once its arguments are read.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <stdexcept>

#include "records.hpp"
#include "texts.hpp"

namespace nb = nanobind;
using namespace graphtide;

namespace {

using Ints = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Made = nb::ndarray<nb::numpy, int64_t, nb::ndim<1>>;

Made made(std::vector<int64_t>&& values) {
  auto* kept = new std::vector<int64_t>(std::move(values));
  nb::capsule owner(kept, [](void* of) noexcept { delete static_cast<std::vector<int64_t>*>(of); });
  return Made(kept->data(), {kept->size()}, owner);
}

std::pair<const char*, size_t> bytes_of(nb::bytes data) { return {data.c_str(), data.size()}; }

Column column(nb::bytes data, Ints begin, Ints length) {
  const auto [text, size] = bytes_of(data);
  if (begin.shape(0) != length.shape(0)) throw std::invalid_argument("begin and length differ in size");
  const Column texts{text, begin.data(), length.data(), begin.shape(0)};
  for (size_t row = 0; row < texts.n; ++row) {
    const int64_t at = texts.begin[row], bytes = texts.length[row];
    if (at < 0 || bytes < 0 || at > static_cast<int64_t>(size) || bytes > static_cast<int64_t>(size) - at) {
      throw std::out_of_range("a text lies outside its buffer");
    }
  }
  return texts;
}

nb::object scan_objects(nb::bytes data, Ints begin, Ints length, const std::vector<nb::bytes>& literals,
                        std::vector<bool> is_number) {
  const Column pieces = column(data, begin, length);
  if (literals.size() != is_number.size() + 1 || is_number.empty()) throw std::invalid_argument("literals do not fit");
  Template how{{}, std::move(is_number)};
  for (const nb::bytes& literal : literals) how.literals.emplace_back(literal.c_str(), literal.size());
  Found found{std::vector<std::vector<int64_t>>(how.fields()), std::vector<std::vector<int64_t>>(how.fields())};
  std::vector<int64_t> owner;
  bool alike = true;
  {
    nb::gil_scoped_release unlocked;
    for (auto* columns : {&found.begin, &found.length}) {
      for (auto& values : *columns) values.reserve(pieces.n);
    }
    for (size_t piece = 0; alike && piece < pieces.n; ++piece) {
      alike = scan(pieces.data, pieces.begin[piece], pieces.begin[piece] + pieces.length[piece], how, found);
      owner.resize(found.begin[0].size(), static_cast<int64_t>(piece));
    }
  }
  if (!alike) return nb::none();
  nb::list begins, lengths;
  for (auto& values : found.begin) begins.append(made(std::move(values)));
  for (auto& values : found.length) lengths.append(made(std::move(values)));
  return nb::make_tuple(begins, lengths, made(std::move(owner)));
}

template <bool (*read)(const Column&, int64_t*)>
nb::object numbers_of(nb::bytes data, Ints begin, Ints length) {
  const Column texts = column(data, begin, length);
  std::vector<int64_t> numbers(texts.n);
  bool are;
  {
    nb::gil_scoped_release unlocked;
    are = read(texts, numbers.data());
  }
  return are ? nb::cast(made(std::move(numbers))) : nb::none();
}

nb::tuple number_texts(TextNumbers& known, nb::bytes data, Ints begin, Ints length) {
  const Column texts = column(data, begin, length);
  std::vector<int64_t> numbers(texts.n), first_rows;
  {
    nb::gil_scoped_release unlocked;
    known.number(texts, numbers.data(), first_rows);
  }
  return nb::make_tuple(made(std::move(numbers)), made(std::move(first_rows)));
}

nb::object read_records_of(nb::bytes data, Ints end, Ints count) {
  const auto [text, size] = bytes_of(data);
  if (end.shape(0) != count.shape(0)) throw std::invalid_argument("end and count differ in size");
  Records records;
  bool are = true;
  {
    nb::gil_scoped_release unlocked;
    size_t begin = 0;
    for (size_t piece = 0; are && piece < end.shape(0); ++piece) {
      const int64_t stop = end.data()[piece];
      are = stop >= static_cast<int64_t>(begin) && stop <= static_cast<int64_t>(size) &&
            read_records(reinterpret_cast<const uint8_t*>(text), size, begin, static_cast<size_t>(stop),
                         count.data()[piece], records);
      begin = static_cast<size_t>(stop);
    }
  }
  if (!are) return nb::none();
  nb::list fields;
  for (auto& values : records) fields.append(made(std::move(values)));
  return nb::object(std::move(fields));
}

}  // namespace

NB_MODULE(_native, module) {
  module.def("scan_objects", &scan_objects, nb::arg("data"), nb::arg("begin"), nb::arg("length"), nb::arg("literals"),
             nb::arg("is_number"));
  module.def("whole_numbers", &numbers_of<whole_numbers>, nb::arg("data"), nb::arg("begin"), nb::arg("length"));
  module.def("iso_us", &numbers_of<iso_us>, nb::arg("data"), nb::arg("begin"), nb::arg("length"));
  module.def("read_records", &read_records_of, nb::arg("data"), nb::arg("end"), nb::arg("count"));
  nb::class_<TextNumbers>(module, "TextNumbers")
      .def(nb::init<>())
      .def("number", &number_texts, nb::arg("data"), nb::arg("begin"), nb::arg("length"))
      .def("clear", &TextNumbers::clear)
      .def("__len__", &TextNumbers::size);
}
