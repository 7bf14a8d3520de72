// LlamaScratch: the memory of one step, sized once for the largest, in one block of the device. What attention and what the MLP of a layer
// need lies in the same place: they never need it at once.
#pragma once

#include <cstdint>

#include "kernels/view.h"
#include "parallel/topology.h"
#include "worker/model/model_config.h"
#include "worker/model/stage_device.h"

namespace accrete::worker {

// Where a stage's largest step needs how much.
struct LlamaScratchSize {
  int64_t tokens = 0;      // T at most
  int64_t logit_rows = 0;  // n at most
  int tensor_size = 1;     // ranks of the tensor group
  bool gathers = false;    // this rank gets the whole logits of several
  bool fp8 = false;        // the layers' products read rows rounded to fp8, from x8
};

// Outputs of a shard's logits, a multiple of 16 as products on a GPU want it; the same for all shards.
int64_t padded_vocab(int64_t vocab, int tensor_size);

class ScratchBuffer {
 public:
  // The first elements of it, contiguous.
  template <int N>
  AnyView<N> view(std::array<int64_t, N> shape) const {
    AnyView<N> view;
    view.data = data;
    view.dtype = dtype;
    view.shape = shape;
    int64_t step = 1;
    for (int i = N - 1; i >= 0; --i) {
      view.stride[i] = step;
      step *= shape[i];
    }
    CHECK(step <= elements, step, elements);
    return view;
  }
  template <class T, int N>
  View<T, N> as(std::array<int64_t, N> shape) const {
    return view<N>(shape).template as<T>();
  }

  std::byte* data = nullptr;
  int64_t elements = 0;
  DType dtype = DType::f32;
};

struct LlamaScratch {
  LlamaScratch(const ModelConfig& config, const parallel::ShardSpec& shard, const LlamaScratchSize& size, StageDevice& device);

  // Of the device's activation type, unless said otherwise.
  ScratchBuffer hidden;        // [T, E] the residual stream
  ScratchBuffer delta;         // [T, E] what a block adds to it
  ScratchBuffer normed;        // [T, E]; fp8: [n, E]
  ScratchBuffer qkv;           // [T, (Hq_local + 2 Hkv_local) D]
  ScratchBuffer q;             // [T, Hq_local, D]
  ScratchBuffer own_k;         // [T, Hkv_local, D]
  ScratchBuffer own_v;         // [T, Hkv_local, D]
  ScratchBuffer own_slot;      // [T, Hkv_local] int32
  ScratchBuffer weight;        // [Hkv_local, T] f32
  ScratchBuffer appends;       // [Hkv_local, 2, ceil(T / 32)] int32
  ScratchBuffer attended;      // [T, Hq_local, D]
  ScratchBuffer gate_up;       // [T, 2 F_local]
  ScratchBuffer activated;     // [T, F_local]; not fp8
  ScratchBuffer cos;           // [T, D/2] f32
  ScratchBuffer sin;           // [T, D/2] f32
  ScratchBuffer x8;            // [T, K] fp8, K the widest input of a product; fp8
  ScratchBuffer x_scale;       // [T] f32, the factors of x8, until the next op rounds its rows; fp8
  ScratchBuffer last_rows;     // [n, E] residual rows whose logits are wanted; last stage
  ScratchBuffer shard_logits;  // [n, V_padded] f32, this shard's; last stage
  ScratchBuffer all_logits;    // [tensor_size, n, V_padded] f32; last stage, who gathers
  ScratchBuffer logits;        // [n, V] f32; last stage, who gathers
  int64_t bytes = 0;

 private:
  DeviceBytes memory_;
};

}  // namespace accrete::worker
