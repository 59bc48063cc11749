/* descriptors: reports that this process is out of file descriptors. */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

#include <stdbool.h>

/* Whether a system call has failed with `error` for want of a file descriptor. This is logged, with the limit, and
 * counts (STAT_DESCRIPTORS_EXHAUSTED) until it has not happened for DESCRIPTORS_CALM_S seconds. */
bool descriptors_exhausted(int error);

enum { DESCRIPTORS_CALM_S = 10 };

/* Call this once a second. */
void descriptors_tick(void);

#endif
