/* trace: the trace of the request in progress (W3C Trace Context, header traceparent).
 *
 * A client sends it. It appears in each log line about the request and is sent unchanged with the upstream
 * query. A worker has one thread and so one current trace: a callback enters its trace and restores the outer
 * one when it returns. */
#ifndef TRACE_H
#define TRACE_H

#include "lib/util.h"

struct trace {
    char parent[56]; /* "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", or "": none */
};

/* Parses the header; `given` may be NULL. A malformed one gives no trace; a later version is treated as
 * 00. */
struct trace trace_read(const char *given);

/* Returns the outer trace, to be entered again at the end. Both (ref). */
const struct trace *trace_enter(const struct trace *trace);

/* The current trace, or none. */
struct trace trace_now(void);

#endif
