/* stream: see stream.h. A view contains no line breaks, so it fits into one data line. */
#include "request/stream.h"

#include <string.h>

#include "lib/stats.h"

enum {
    ID_LEN = ETAG_SIZE - 3, /* an event's id is the ETag without quotes */
    TEXT_MAX = 16 * 1024 * 1024
};

void stream_head(const struct answer_facts *facts, struct buf *out)
{
    buf_init(out, TEXT_MAX);
    answer_add_request(out, facts);
    buf_puts(out, "Content-Type: text/event-stream\r\nCache-Control: no-store\r\nX-Accel-Buffering: no\r\n"
                  "Cache-Status: taskproxy; fwd=request\r\nX-Cache: MISS\r\n");
    answer_add_readers(out, facts);
    buf_puts(out, "\r\n");
}

bool stream_resume(struct stream *s, const char *last_event_id, const struct snapshot *snapshot,
                   enum view_kind kind)
{
    const struct view_bytes *view = &snapshot->views[kind];
    if (last_event_id == NULL || strlen(last_event_id) != ID_LEN ||
        memcmp(last_event_id, view->etag + 1, ID_LEN) != 0)
        return false;
    memcpy(s->last_etag, view->etag, ETAG_SIZE);
    return state_ended(snapshot->state);
}

void stream_open(struct stream *s, struct fcgi_request *client, const struct answer_facts *facts)
{
    struct buf head;
    stream_head(facts, &head);
    fcgi_stream(client, head.data, head.len);
    buf_done(&head);
    s->open = true;
    stat_inc(STAT_STREAMS);
}

void stream_close(struct stream *s, struct fcgi_request *client)
{
    if (!s->open)
        return;
    if (client != NULL)
        fcgi_stream_end(client);
    s->open = false;
    stat_dec(STAT_STREAMS);
}

static bool send_text(struct fcgi_request *client, struct buf *text)
{
    bool open = fcgi_stream_send(client, text->data, text->len);
    buf_done(text);
    return open;
}

bool stream_send_view(struct stream *s, struct fcgi_request *client, const struct view_bytes *view)
{
    struct buf text;
    if (strcmp(view->etag, s->last_etag) == 0)
        return stream_send_heartbeat(client);
    memcpy(s->last_etag, view->etag, ETAG_SIZE);
    buf_init(&text, TEXT_MAX);
    buf_puts(&text, "event: status\nid: ");
    buf_add(&text, view->etag + 1, ID_LEN);
    buf_puts(&text, "\ndata: ");
    buf_add(&text, view->data, view->len);
    buf_puts(&text, "\n\n");
    return send_text(client, &text);
}

bool stream_send_problem(struct fcgi_request *client, enum problem problem, const char *request_id)
{
    struct buf text;
    buf_init(&text, TEXT_MAX);
    buf_puts(&text, "event: problem\ndata: ");
    problem_body(problem, request_id, &text);
    buf_puts(&text, "\n\n");
    return send_text(client, &text);
}

bool stream_send_heartbeat(struct fcgi_request *client)
{
    static const char comment[] = ": still here\n\n";
    return fcgi_stream_send(client, comment, strlen(comment));
}
