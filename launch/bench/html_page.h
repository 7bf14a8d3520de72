// The head of a report: one file, no scripts, nothing loaded from elsewhere.
#pragma once

#include <string>

namespace accrete::launch {

// Up to and with <body>.
std::string html_head(const std::string& title);

}  // namespace accrete::launch
