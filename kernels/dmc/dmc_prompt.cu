// The update of prompts in four launches. What a token's slot holds right after it depends on at most W neighbours, so only slot numbers
// need a scan, and that is one over bits:
//   decide  a lane a token: decisions and weights
//   count   a warp a (sequence, KV head): slots at the start of every word of bits; pages are taken at once
//   enter   a block a (word, KV head): queries rotated, the window's average, own entry; the last of a segment goes to its page
//   keep    a warp a (sequence, KV head): the newest W tokens of the open segment into the ring, the counts into the tables
// Tables and ring stay as the step found them until keep, so that every token of enter can read them.
#include "kernels/dependent_launch.cuh"
#include "kernels/dmc/dmc_prompt.cuh"
#include "kernels/dmc/prompt_tile.cuh"
#include "kernels/dmc/update_head.cuh"

namespace accrete {
namespace {

constexpr int kWarpsPerBlock = 4;
constexpr int kThreads = 32 * kWarpsPerBlock;

// A head's tokens of one sequence.
struct HeadSpan {
  int head;
  int begin, end;  // of the step's tokens; none: no tokens, or a row of padding
  int table;       // (row, head) in the tables

  __device__ HeadSpan(const UpdateArgs& a, int item) : head(item % a.kv_heads), begin(0), end(0), table(0) {
    if (item >= a.sequences * a.kv_heads) return;
    const int sequence = a.first_sequence + item / a.kv_heads, row = a.row[sequence];
    table = row * a.kv_heads + head;
    if (row < 0) return;
    begin = a.begin[sequence];
    end = a.begin[sequence + 1];
  }
  __device__ bool empty() const { return begin == end; }
  // The span's bits of a word.
  __device__ uint32_t bits(const AppendBits& appends, int index) const {
    if (index < begin / kWordTokens || index > (end - 1) / kWordTokens) return 0;
    return appends.word[index] & bits_from(begin, index * kWordTokens) & bits_before(end, index * kWordTokens);
  }
};

__device__ int pages_of(const UpdateArgs& a, int slots) { return a.by_page_slots.quotient(slots + a.page_slots - 1); }

// The first token of a sequence that has no slot must open one.
__device__ bool opens_first_slot(const UpdateArgs& a, const HeadToken& at) {
  const int row = a.row[at.sequence];
  return row >= 0 && a.begin[at.sequence] == at.t && a.slots[static_cast<int64_t>(row) * a.kv_heads + at.head] == 0;
}

// A warp has 32 tokens of a head. Runs beside the update of the step's decodes.
__global__ void __launch_bounds__(kThreads) decide_kernel(const UpdateArgs a) {
  launch_next();
  const int item = blockIdx.x * kWarpsPerBlock + threadIdx.x / 32, words = words_of(a);
  const int index = a.first_sequence / kWordTokens + item / a.kv_heads, head = item % a.kv_heads, t = index * kWordTokens + lane_of_warp();
  bool append = false;
  if (index < words && t >= a.first_sequence && t < a.tokens) {
    const HeadToken at{t, a.sequence[t], head};
    const bool first = t == a.first_sequence || a.sequence[t - 1] != at.sequence;
    const Decision made = decide_token(a, at, load_neurons(a, at, a.size));
    append = !made.accumulate || (first && opens_first_slot(a, at));
    a.weight[static_cast<int64_t>(head) * a.tokens + t] = made.weight;
  }
  const unsigned bits = __ballot_sync(kAllLanes, append);
  if (lane_of_warp() == 0 && index < words) AppendBits(a, head).word[index] = bits;
  wait_for_previous();  // the decodes' update, which concerns none of these but must have ended before what follows
}

// Takes the pages that the head's slots grow into; what cannot be had stays kNoPage in its table.
__device__ void take_pages(const UpdateArgs& a, int table, int before, int after) {
  const int held = pages_of(a, before), wanted = pages_of(a, after);
  TicketRange taken;
  if (lane_of_warp() == 0) {
    if (wanted <= a.max_pages) taken = take_tickets(a.pool, wanted - held);
    else *a.pool.exhausted = 1;
  }
  taken.first = __shfl_sync(kAllLanes, taken.first, 0);
  taken.count = __shfl_sync(kAllLanes, taken.count, 0);
  for (int i = lane_of_warp(); i < taken.count; i += 32) a.page_rows[static_cast<int64_t>(table) * a.max_pages + held + i] = page_of_ticket(a.pool, taken.first + i);
}

__global__ void __launch_bounds__(kThreads) count_kernel(const UpdateArgs a) {
  constexpr int kAtOnce = 4;  // words that a lane has in flight
  launch_next();
  wait_for_previous();
  const HeadSpan span(a, blockIdx.x * kWarpsPerBlock + threadIdx.x / 32);
  if (span.empty()) return;
  const AppendBits appends(a, span.head);
  const int before = a.slots[span.table], last = (span.end - 1) / kWordTokens;
  int slots = before;
  for (int base = span.begin / kWordTokens; base <= last; base += 32 * kAtOnce) {
    int count[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) count[i] = __popc(span.bits(appends, base + 32 * i + lane_of_warp()));
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      int through = count[i];  // of the words up to this lane's
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(kAllLanes, through, step);
        if (lane_of_warp() >= step) through += other;
      }
      const int index = base + 32 * i + lane_of_warp();
      if (index <= last && index * kWordTokens >= span.begin) appends.slots[index] = slots + through - count[i];
      slots += __shfl_sync(kAllLanes, through, 31);
    }
  }
  take_pages(a, span.table, before, slots);
}

template <int kPairs>
__global__ void __launch_bounds__(kThreads) keep_kernel(const UpdateArgs a) {
  launch_next();
  wait_for_previous();
  const HeadSpan span(a, blockIdx.x * kWarpsPerBlock + threadIdx.x / 32);
  if (span.empty()) return;
  const AppendBits appends(a, span.head);
  const bool dmc = a.dmc.mode != DmcMode::off;
  const int last = span.end - 1;
  int newest = -1;  // token that opened the open segment
  for (int index = last / kWordTokens; newest < 0 && index >= span.begin / kWordTokens; index -= 32) {
    const uint32_t bits = span.bits(appends, index - lane_of_warp());
    const unsigned lanes = __ballot_sync(kAllLanes, bits != 0);
    if (lanes == 0) continue;
    const int lane = __ffs(lanes) - 1;
    newest = (index - lane) * kWordTokens + 31 - __clz(__shfl_sync(kAllLanes, bits, lane));
  }
  const int before = a.slots[span.table];
  int slots = appends.slots_after(last, span.begin, before);
  const int age = newest >= 0 ? last - newest : (dmc ? a.segment[span.table] : 0) + last - span.begin;
  const int32_t* pages = a.page_rows + static_cast<int64_t>(span.table) * a.max_pages;
  int held = min(pages_of(a, slots), a.max_pages);
  while (held > 0 && pages[held - 1] == kNoPage) --held;  // the pool ran dry: the row is void, and has what pages there were
  slots = min(slots, held * a.page_slots);
  const int kept = dmc ? min(min(age + 1, a.dmc.window), span.end - span.begin) : 0;
#pragma unroll 4
  for (int back = 0; back < kept; ++back) {
    const HeadToken at{last - back, 0, span.head};
    auto token = load_key_value<kPairs>(a, at);
    zero_neuron(a, token);
    Ring<kPairs>(a, span.table).store(a.by_window.remainder(age - back), token, a.weight[static_cast<int64_t>(span.head) * a.tokens + at.t]);
  }
  __syncwarp();  // all lanes have read the counts
  if (lane_of_warp() != 0) return;
  a.slots[span.table] = slots;
  if (dmc) a.segment[span.table] = age + 1;
}

unsigned blocks_of(int64_t items) { return static_cast<unsigned>((items + kWarpsPerBlock - 1) / kWarpsPerBlock); }

template <int kPairs>
void launch(const UpdateArgs& a, cudaStream_t stream) {
  const int words = (a.tokens + kWordTokens - 1) / kWordTokens - a.first_sequence / kWordTokens;
  const int64_t heads = static_cast<int64_t>(a.sequences) * a.kv_heads;
  launch_dependent(decide_kernel, {blocks_of(static_cast<int64_t>(words) * a.kv_heads), kThreads, 0, stream, a.first_sequence > 0}, a);
  launch_dependent(count_kernel, {blocks_of(heads), kThreads, 0, stream}, a);
  launch_enter<kPairs>(a, words, stream);
  launch_dependent(keep_kernel<kPairs>, {blocks_of(heads), kThreads, 0, stream}, a);
}

}  // namespace

bool prompt_update_fits(const DmcUpdate& op) {
  const bool limited = op.dmc.mode == DmcMode::off || (op.dmc.window > 0 && op.dmc.window <= kMostWindow);
  return limited && op.weight.data && op.appends.data && op.batch.sequence.data;
}

void launch_prompt_update(const UpdateArgs& args, cudaStream_t stream) {
  if (args.size == 64) return launch<2>(args, stream);
  if (args.size == 128) return launch<4>(args, stream);
  launch<8>(args, stream);
}

}  // namespace accrete
