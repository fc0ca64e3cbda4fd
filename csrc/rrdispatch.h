/* The public header of the C core: what rr_core.inc declares, with the types that it needs. */
#ifndef RRDISPATCH_H
#define RRDISPATCH_H

#include <stdint.h>

#include "rr_core.inc"

#endif
