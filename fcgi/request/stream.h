/* stream: the event stream of one request - its head, an event for each change, comments in between. */
#ifndef STREAM_H
#define STREAM_H

#include "request/events.h"
#include "net/fcgi.h"

/* Embedded in the request; zeroed before use. */
struct stream {
    bool open;                 /* the head is out, and it was not closed */
    char last_etag[ETAG_SIZE]; /* of the view that the client has */
};

/* What the client has by its Last-Event-ID (may be NULL) is not told again. True when that was the end. */
bool stream_resume(struct stream *stream, const char *last_event_id, const struct snapshot *snapshot,
                   enum view_kind kind);

void stream_open(struct stream *stream, struct fcgi_request *client, const struct answer_facts *facts);
void stream_close(struct stream *stream, struct fcgi_request *client);

/* Each returns false when the client is gone, or too slow: it must be forgotten. A view that the client has
 * becomes a comment, since nginx sends a head only with what follows it. */
MUST_CHECK bool stream_send_view(struct stream *stream, struct fcgi_request *client,
                                 const struct view_bytes *view);
MUST_CHECK bool stream_send_problem(struct fcgi_request *client, enum problem problem,
                                    const char *request_id);
MUST_CHECK bool stream_send_heartbeat(struct fcgi_request *client);

#endif
