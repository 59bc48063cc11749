/* stream: see stream.h. */
#include "request/stream.h"

#include <string.h>

#include "lib/stats.h"

static bool send_text(struct fcgi_request *client, struct buf *text)
{
    bool open = fcgi_stream_send(client, text->data, text->len);
    buf_done(text);
    return open;
}

bool stream_resume(struct stream *s, const char *last_event_id, const struct snapshot *snapshot,
                   enum view_kind kind)
{
    const struct view_bytes *view = &snapshot->views[kind];
    if (!events_is_known(last_event_id, view))
        return false;
    memcpy(s->last_etag, view->etag, ETAG_SIZE);
    return state_ended(snapshot->state);
}

void stream_open(struct stream *s, struct fcgi_request *client, const struct answer_facts *facts)
{
    struct buf head;
    events_head(facts, &head);
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

bool stream_send_view(struct stream *s, struct fcgi_request *client, const struct view_bytes *view)
{
    struct buf text;
    if (strcmp(view->etag, s->last_etag) == 0)
        return stream_send_heartbeat(client);
    memcpy(s->last_etag, view->etag, ETAG_SIZE);
    events_begin(&text);
    events_status(view, &text);
    return send_text(client, &text);
}

bool stream_send_problem(struct fcgi_request *client, enum problem problem, const char *request_id)
{
    struct buf text;
    events_begin(&text);
    events_problem(problem, request_id, &text);
    return send_text(client, &text);
}

bool stream_send_heartbeat(struct fcgi_request *client)
{
    struct buf text;
    events_begin(&text);
    events_heartbeat(&text);
    return send_text(client, &text);
}
