/* stream: the text of event streams (WHATWG HTML, text/event-stream).
 *
 *     event: status     a view: the first one of each task, each change, and the end of a trouble
 *     event: problem    a failure; unless it may pass, the last event of the task
 *     event: stale      the team has no query left for now: the last view is not refreshed
 *     retry:            when to reconnect, in ms: with a problem that may pass, at the end of a stream, and at its start if
 *                       there is no event yet
 *
 * The id of an event is the ETag of the view, without quotes. In the stream of a list it says what the client knows
 * of every task: for each one, in order, the first MARK_LEN characters of its view's ETag, or of the code of the
 * problem that ended it, or dashes. A client that reconnects with an id gets only what is new since then; an id that
 * the client has made up just causes other events to be sent. */
#ifndef STREAM_H
#define STREAM_H

#include "request/lookup.h"

/* Takes what the client knows from its Last-Event-ID, which may be any text, or NULL. Returns whether it knows a result
 * of each task. */
bool stream_take_last_id(struct lookups *lookups, const char *last_event_id);

/* Adds an event for everything that the client does not know, and notes that it does. */
void stream_add_news(struct lookups *lookups, enum view_kind view, struct buf *text);

/* Adds a problem that concerns all tasks. */
void stream_add_problem(struct buf *text, enum problem problem, const char *request_id,
                        int64_t retry_after_ms);

/* Adds the pause before the client reconnects, which is random so that clients do not come all at once. It is short if
 * the stream has `moved`: another process already serves it. */
void stream_add_retry(struct buf *text, bool moved);

#endif
