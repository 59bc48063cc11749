/* stream: the event stream of one request (WHATWG HTML, text/event-stream): its head, an event for each change, and
 * comments in between. */
#ifndef STREAM_H
#define STREAM_H

#include "request/answer.h"
#include "net/fcgi.h"

/* Embedded in the request; zeroed before use. */
struct stream {
    bool open;                 /* the head was sent, and the stream was not closed */
    char last_etag[ETAG_SIZE]; /* of the view that the client has */
};

/* Records the view that the client has, according to its Last-Event-ID (any bytes; may be NULL), so that it is not
 * sent again. Returns true if the task has ended with that view, so that no event will follow. */
bool stream_resume(struct stream *stream, const char *last_event_id, const struct snapshot *snapshot,
                   enum view_kind kind);

void stream_open(struct stream *stream, struct fcgi_request *client, const struct answer_facts *facts);
void stream_close(struct stream *stream, struct fcgi_request *client);

/* Each returns false if the client has left or reads too slowly; then `client` must not be used any more. A view
 * that the client already has is sent as a comment, because nginx sends a head only together with data. */
MUST_CHECK bool stream_send_view(struct stream *stream, struct fcgi_request *client,
                                 const struct view_bytes *view);
MUST_CHECK bool stream_send_problem(struct fcgi_request *client, enum problem problem,
                                    const char *request_id);
MUST_CHECK bool stream_send_heartbeat(struct fcgi_request *client);

/* The header lines of a stream, with the empty line. The caller frees `out`. */
void stream_head(const struct answer_facts *facts, struct buf *out);

#endif
