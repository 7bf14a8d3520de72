// The JSON of a safetensors header, read event by event: no document is built, so a hostile header costs no memory.
#pragma once

#include <string>
#include <string_view>

#include "worker/model/safetensors.h"

namespace accrete::worker {

// {"__metadata__": {string: string}, name: {"dtype": string, "shape": [n...], "data_offsets": [begin, end]}, ...}
// Offsets are still relative to the data and unchecked, except that begin <= end. Throws ModelError naming `where`, the
// tensor and the field: for anything else in the JSON, for names or fields that stand twice and for fields missing.
SafetensorsTable parse_safetensors_header(std::string_view header, const std::string& where);

}  // namespace accrete::worker
