// What tests of replicas share: outputs collected by request, runs that leak no pages.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "worker/service/replica.h"

namespace accrete::worker {

using Outputs = std::map<RequestId, RequestOutput>;

class Collector {
 public:
  OutputSink sink() {
    return [this](std::vector<RequestOutput>&& outputs) {
      const std::lock_guard lock(mutex_);
      for (RequestOutput& output : outputs) {
        RequestOutput& whole = whole_[output.id];
        whole.tokens.insert(whole.tokens.end(), output.tokens.begin(), output.tokens.end());
        whole.prompt_tokens.insert(whole.prompt_tokens.end(), output.prompt_tokens.begin(), output.prompt_tokens.end());
        if (output.finish == FinishReason::none) continue;
        whole.finish = output.finish;
        whole.error = output.error;
        whole.usage = output.usage;
      }
    };
  }
  Outputs take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(whole_, {});
  }

 private:
  std::mutex mutex_;
  Outputs whole_;
};

inline Outputs run(const EngineOptions& options, const std::vector<Request>& requests) {
  Collector collector;
  LocalReplica replica(options, collector.sink());
  for (const Request& request : requests) replica.submit(request);
  replica.wait_idle();
  const ReplicaStatus status = replica.status();
  for (int i = 0; i < status.report.ranks_size(); ++i) {
    EXPECT_EQ(status.report.ranks(i).pages_free(), status.shape.ranks(i).pages_total()) << "rank " << i << " leaked pages";
  }
  return collector.take();
}

}  // namespace accrete::worker
