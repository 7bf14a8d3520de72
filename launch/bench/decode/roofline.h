// The least time of a decode step on GPUs, from sizes and two measured rates. Pure.
//
//   weights read once, or their products if that takes longer  +  slots and compression state read  +  logits written and read
//   +  the start of each kernel  +  all-reduces under tensor parallelism
// Products and attention are kernels of their own, so their times add.
#pragma once

#include <cstdint>

#include "worker/model/model_config.h"

namespace accrete::launch {

struct RooflineGpu {
  double bandwidth = 3.0e12;   // bytes a second, copied
  double bf16 = 650e12;        // FLOPs a second of large products
  double fp8 = 1200e12;
  double kernel_gap = 1.3e-6;  // seconds lost by a kernel of a graph
};

struct DecodeLoad {
  int64_t batch = 0;
  double slots = 0;        // of a sequence, mean over layers and KV heads
  bool compresses = false; // reads and writes the window's state: 13 slots of every head
  bool fp8 = false;        // weights of the layers
  int tensor = 1;          // T
  int pipeline = 1;        // P; the batch goes through in P parts, so that all stages work
};

struct StepLimit {
  double weights = 0, products = 0, cache = 0, logits = 0, gaps = 0, all_reduce = 0;  // seconds
  double total() const;
  double tokens_per_second(int64_t batch) const { return static_cast<double>(batch) / total(); }
};

StepLimit decode_limit(const worker::ModelConfig& model, const DecodeLoad& load, const RooflineGpu& gpu);

// Bytes of the layers' weights and of one matrix of vocabulary size; of a token's keys and values in all layers at CR 1, bf16.
int64_t layer_parameters(const worker::ModelConfig& model);
int64_t kv_bytes_per_slot(const worker::ModelConfig& model);

}  // namespace accrete::launch
