/* events: the text of a stream of server-sent events (WHATWG HTML, text/event-stream). */
#ifndef EVENTS_H
#define EVENTS_H

#include "request/answer.h"

/* An empty text, which the caller frees, as large as events can be. */
void events_begin(struct buf *out);

/* The head of the answer, with the empty line; begins the text. */
void events_head(const struct answer_facts *facts, struct buf *out);

/* "event: status" with the view on one line, and its ETag, without the quotes, as the id. */
void events_status(const struct view_bytes *view, struct buf *out);

/* "event: problem" with the problem's document. */
void events_problem(enum problem problem, const char *request_id, struct buf *out);

/* A comment, so that nothing between here and there takes the connection for dead. */
void events_heartbeat(struct buf *out);

/* Whether a Last-Event-ID (any bytes; may be NULL) names that view. */
bool events_is_known(const char *last_event_id, const struct view_bytes *view);

#endif
