/* trace: the trace that what is being done right now belongs to (W3C Trace Context, the header traceparent).
 *
 * It comes with a client's request, stands in each line of the log that is written for it, and goes on to the upstream as it
 * came with the query that is made for it. There is one thread, so one trace at a time: who runs on from a callback enters
 * its own, and leaves it for the outer one. */
#ifndef TRACE_H
#define TRACE_H

#include "lib/util.h"

struct trace {
    char parent[56]; /* "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", or "": none */
};

/* What a client gave; may be NULL. What is not well-formed is none, and one of a later version counts as 00. */
struct trace trace_read(const char *given);

/* The outer trace, to be entered again at the end. Both (ref). */
const struct trace *trace_enter(const struct trace *trace);

/* The one that was entered last, or none. */
struct trace trace_now(void);

#endif
