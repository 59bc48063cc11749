/* events: see events.h. Views are written without line breaks, which would end a data line. */
#include "request/events.h"

#include <string.h>

/* The ETag's hex digits. */
enum { ID_LEN = ETAG_SIZE - 3, EVENT_MAX = 16 * 1024 * 1024 };

void events_begin(struct buf *out)
{
    buf_init(out, EVENT_MAX);
}

void events_head(const struct answer_facts *facts, struct buf *out)
{
    events_begin(out);
    answer_add_request(out, facts);
    buf_puts(out, "Content-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n"
                  "Cache-Status: taskproxy; fwd=request\r\nX-Cache: MISS\r\n");
    answer_add_readers(out, facts);
    buf_puts(out, "\r\n");
}

void events_status(const struct view_bytes *view, struct buf *out)
{
    buf_puts(out, "event: status\nid: ");
    buf_add(out, view->etag + 1, ID_LEN);
    buf_puts(out, "\ndata: ");
    buf_add(out, view->data, view->len);
    buf_puts(out, "\n\n");
}

void events_problem(enum problem problem, const char *request_id, struct buf *out)
{
    buf_puts(out, "event: problem\ndata: ");
    problem_body(problem, request_id, out);
    buf_puts(out, "\n\n");
}

void events_heartbeat(struct buf *out)
{
    buf_puts(out, ": still here\n\n");
}

bool events_is_known(const char *last_event_id, const struct view_bytes *view)
{
    return last_event_id != NULL && strlen(last_event_id) == ID_LEN &&
           memcmp(last_event_id, view->etag + 1, ID_LEN) == 0;
}
