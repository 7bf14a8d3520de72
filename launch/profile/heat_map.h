// A SlotProfile as a picture: layers down, KV heads across, colour for how much each compresses. One SVG file, nothing loaded from elsewhere.
#pragma once

#include <string>

#include "launch/profile/slot_profile.h"

namespace accrete::launch {

// After the profile's longest length. Each cell's tooltip has the figures.
std::string heat_map_svg(const SlotProfile& profile);

// "#rrggbb" for t in [0, 1]: dark blue, through green, to yellow; lightness rises all the way, so it reads in grey too.
std::string heat_colour(double t);

}  // namespace accrete::launch
