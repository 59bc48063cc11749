/* sse: reads a stream of server-sent events (WHATWG HTML, "Interpreting an event stream"), in pieces as they come. */
#ifndef SSE_H
#define SSE_H

#include "lib/buf.h"

enum { SSE_NAME_SIZE = 64, SSE_ID_SIZE = 128 };

struct sse_event {
    const char *type; /* "message" where the stream does not say */
    const char *data; /* NUL behind the last byte */
    size_t len;
};

struct sse {
    struct buf line, data;     /* what has come of the present line and event */
    bool after_cr;             /* a '\n' would belong to the line before */
    char type[SSE_NAME_SIZE];  /* of the present event; "" for none */
    char id[SSE_ID_SIZE];      /* the newest; it stays for the events that have none */
    char last_id[SSE_ID_SIZE]; /* that of the last event: what a reconnect says; "" for none */
    void (*on_event)(void *ctx, const struct sse_event *event);
    void *ctx;
};

/* An event has at most `max` bytes. */
void sse_init(struct sse *sse, size_t max, void (*on_event)(void *ctx, const struct sse_event *event),
              void *ctx);
void sse_done(struct sse *sse);

/* A new connection: half of an event is forgotten. */
void sse_restart(struct sse *sse);

/* Calls on_event for each event that has come to its end. False: one is too large. */
MUST_CHECK bool sse_feed(struct sse *sse, const char *bytes, size_t len);

#endif
