// View<T, N>: a pointer that carries its shape. Borrows; never owns.
// AnyView<N>: the same with the element type known at run time, as op parameter structs need it.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

#include "kernels/check.h"
#include "kernels/dtype.h"

namespace accrete {

template <class T, int N>
struct View {
  T* data = nullptr;
  std::array<int64_t, N> shape{};
  std::array<int64_t, N> stride{};  // in elements

  View() = default;
  // Contiguous, last dimension fastest.
  View(T* pointer, std::array<int64_t, N> dims) : data(pointer), shape(dims) {
    int64_t step = 1;
    for (int i = N - 1; i >= 0; --i) {
      stride[i] = step;
      step *= shape[i];
    }
  }
  View(T* pointer, std::array<int64_t, N> dims, std::array<int64_t, N> steps)
      : data(pointer), shape(dims), stride(steps) {}
  // View<T> -> View<const T>
  template <class U>
    requires(std::is_same_v<const U, T> && !std::is_same_v<U, T>)
  View(const View<U, N>& other) : data(other.data), shape(other.shape), stride(other.stride) {}

  template <class... I>
    requires(sizeof...(I) == N)
  ACCRETE_HD T& operator()(I... index) const {
    int64_t offset = 0;
    int axis = 0;
    ((offset += static_cast<int64_t>(index) * stride[axis++]), ...);
    return data[offset];
  }
  // Drops the first dimension.
  View<T, N - 1> operator[](int64_t index) const
    requires(N > 1)
  {
    View<T, N - 1> row;
    row.data = data + index * stride[0];
    for (int i = 1; i < N; ++i) {
      row.shape[i - 1] = shape[i];
      row.stride[i - 1] = stride[i];
    }
    return row;
  }
  // Rows [begin, end) of the first dimension.
  View<T, N> rows(int64_t begin, int64_t end) const {
    View<T, N> part = *this;
    part.data += begin * stride[0];
    part.shape[0] = end - begin;
    return part;
  }
  int64_t size() const {
    int64_t count = 1;
    for (int64_t dim : shape) count *= dim;
    return count;
  }
};

template <int N>
struct AnyView {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::array<int64_t, N> shape{};
  std::array<int64_t, N> stride{};

  AnyView() = default;
  template <class T>
  AnyView(const View<T, N>& view)
      : data(const_cast<std::remove_const_t<T>*>(view.data)),
        dtype(dtype_of<std::remove_const_t<T>>::value),
        shape(view.shape),
        stride(view.stride) {}

  // The typed view; a CHECK fails if the element type is another.
  template <class T>
  View<T, N> as() const {
    CHECK(dtype == dtype_of<std::remove_const_t<T>>::value, name_of(dtype));
    return View<T, N>(static_cast<T*>(data), shape, stride);
  }
};

}  // namespace accrete
