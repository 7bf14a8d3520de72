// The body of attend(), a template over the vector width. Included by attend_portable.cpp, attend_avx2.cpp and attend_avx512.cpp below
// their target pragma, inside an anonymous namespace, so no instantiation is shared between levels.

template <int Lanes>
struct AttendTile {
  typedef float Vec __attribute__((vector_size(Lanes * 4), aligned(4), may_alias));

  static const Vec& at(const float* p) { return *reinterpret_cast<const Vec*>(p); }
  static Vec& at(float* p) { return *reinterpret_cast<Vec*>(p); }

  // One fixed tree over the lanes.
  static float sum(Vec value) {
    float lane[Lanes];
    __builtin_memcpy(lane, &value, sizeof(value));
    for (int width = Lanes / 2; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
    }
    return lane[0];
  }

  // scores[0..3] = q . k of four neighbouring slots
  static void dot4(const float* q, const float* k, int64_t size, float* scores) {
    Vec a{}, b{}, c{}, d{};
    const int64_t whole = size / Lanes * Lanes;
    for (int64_t i = 0; i < whole; i += Lanes) {
      const Vec x = at(q + i);
      a += x * at(k + i);
      b += x * at(k + size + i);
      c += x * at(k + 2 * size + i);
      d += x * at(k + 3 * size + i);
    }
    const Vec sums[4] = {a, b, c, d};
    for (int s = 0; s < 4; ++s) {
      scores[s] = sum(sums[s]);
      for (int64_t i = whole; i < size; ++i) scores[s] += q[i] * k[s * size + i];
    }
  }
  static float dot(const float* q, const float* k, int64_t size) {
    Vec a{};
    const int64_t whole = size / Lanes * Lanes;
    for (int64_t i = 0; i < whole; i += Lanes) a += at(q + i) * at(k + i);
    float total = sum(a);
    for (int64_t i = whole; i < size; ++i) total += q[i] * k[i];
    return total;
  }

  static void score_row(const float* q, const AttendSlots& slots, int64_t count, int64_t size, float* scores) {
    for (int64_t s = 0; s < count;) {
      const float* k = slots.keys[s / slots.run] + s % slots.run * size;
      const int64_t here = std::min(count - s, slots.run - s % slots.run);
      int64_t i = 0;
      for (; i + 4 <= here; i += 4) dot4(q, k + i * size, size, scores + s + i);
      for (; i < here; ++i) scores[s + i] = dot(q, k + i * size, size);
      s += here;
    }
  }

  // A row's weights p[count] and its sums o[size].
  struct Sums {
    const float* p;
    int64_t count;
    int64_t size;
    float* o;
  };

  // o[begin, begin + 4 Lanes) += sum_s p[s] v[s]
  static void add_values(const AttendSlots& slots, const Sums& sums, int64_t begin) {
    const auto [p, count, size, row] = sums;
    float* o = row + begin;
    Vec a = at(o), b = at(o + Lanes), c = at(o + 2 * Lanes), d = at(o + 3 * Lanes);
    for (int64_t s = 0; s < count;) {
      const float* v = slots.values[s / slots.run] + s % slots.run * size + begin;
      const int64_t here = std::min(count - s, slots.run - s % slots.run);
      for (int64_t i = 0; i < here; ++i, v += size) {
        const float weight = p[s + i];
        a += weight * at(v);
        b += weight * at(v + Lanes);
        c += weight * at(v + 2 * Lanes);
        d += weight * at(v + 3 * Lanes);
      }
      s += here;
    }
    at(o) = a;
    at(o + Lanes) = b;
    at(o + 2 * Lanes) = c;
    at(o + 3 * Lanes) = d;
  }
  static void add_values_tail(const AttendSlots& slots, const Sums& sums, int64_t begin) {
    const auto [p, count, size, o] = sums;
    for (int64_t s = 0; s < count; ++s) {
      const float* v = slots.values[s / slots.run] + s % slots.run * size;
      for (int64_t i = begin; i < size; ++i) o[i] += p[s] * v[i];
    }
  }

  static void row(const AttendRows& rows, const AttendSlots& slots, int64_t r) {
    const int64_t count = std::min<int64_t>(slots.count, rows.limit[r] - slots.first);
    if (count <= 0) return;
    const int64_t size = rows.size;
    float p[kAttendSlots];
    score_row(rows.q + r * rows.q_stride, slots, count, size, p);
    float top = rows.m[r];
    for (int64_t s = 0; s < count; ++s) {
      p[s] *= rows.scale;
      top = std::max(top, p[s]);
    }
    const float keep = fast_exp(rows.m[r] - top);
    float total = 0.0f;
    for (int64_t s = 0; s < count; ++s) p[s] = fast_exp(p[s] - top);
    for (int64_t s = 0; s < count; ++s) total += p[s];
    rows.m[r] = top;
    rows.l[r] = rows.l[r] * keep + total;
    float* o = rows.o + r * size;
    for (int64_t i = 0; i < size; ++i) o[i] *= keep;
    const int64_t whole = size / (4 * Lanes) * (4 * Lanes);
    for (int64_t begin = 0; begin < whole; begin += 4 * Lanes) add_values(slots, {p, count, size, o}, begin);
    if (whole < size) add_values_tail(slots, {p, count, size, o}, whole);
  }

  static void run(const AttendRows& rows, const AttendSlots& slots) {
    for (int64_t r = 0; r < rows.rows; ++r) row(rows, slots, r);
  }
};
