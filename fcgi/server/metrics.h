/* metrics: the sums of stats.h in the text format of Prometheus. */
#ifndef METRICS_H
#define METRICS_H

#include "lib/buf.h"

void metrics_print(struct buf *out);

#endif
