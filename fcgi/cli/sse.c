/* sse: see sse.h. */
#include "cli/sse.h"

#include <string.h>

void sse_init(struct sse *s, size_t max, void (*on_event)(void *ctx, const struct sse_event *event),
              void *ctx)
{
    *s = (struct sse){.on_event = on_event, .ctx = ctx};
    buf_init(&s->line, max);
    buf_init(&s->data, max);
}

void sse_done(struct sse *s)
{
    buf_done(&s->line);
    buf_done(&s->data);
}

void sse_restart(struct sse *s)
{
    buf_reset(&s->line);
    buf_reset(&s->data);
    s->after_cr = false;
    s->type[0] = '\0';
    memcpy(s->id, s->last_id, sizeof(s->id));
}

/* An event without data is none; a line break ends each line of data, but for the last. */
static void dispatch(struct sse *s)
{
    memcpy(s->last_id, s->id, sizeof(s->last_id));
    if (s->data.len > 0) {
        s->data.data[--s->data.len] = '\0';
        const struct sse_event event = {
            .type = s->type[0] ? s->type : "message", .data = s->data.data, .len = s->data.len};
        s->on_event(s->ctx, &event);
    }
    buf_reset(&s->data);
    s->type[0] = '\0';
}

/* A header will have it, so an id that could not stand in one is none. */
static bool is_good_id(const char *value, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)value[i] <= 0x20 || (unsigned char)value[i] >= 0x7f)
            return false;
    }
    return len < SSE_ID_SIZE;
}

static void take_field(struct sse *s, const char *name, size_t name_len, const char *value, size_t len)
{
    if (name_len == 4 && memcmp(name, "data", 4) == 0) {
        buf_add(&s->data, value, len);
        buf_putc(&s->data, '\n');
    } else if (name_len == 5 && memcmp(name, "event", 5) == 0 && len < SSE_NAME_SIZE) {
        memcpy(s->type, value, len);
        s->type[len] = '\0';
    } else if (name_len == 2 && memcmp(name, "id", 2) == 0 && is_good_id(value, len)) {
        memcpy(s->id, value, len);
        s->id[len] = '\0';
    }
}

/* "name: value", "name", or ": a comment". */
static void take_line(struct sse *s)
{
    const char *line = s->line.data;
    size_t len = s->line.len;
    if (len == 0)
        return dispatch(s);
    const char *colon = memchr(line, ':', len);
    size_t name_len = colon ? (size_t)(colon - line) : len, from = colon ? name_len + 1 : len;
    if (from < len && line[from] == ' ')
        from++;
    take_field(s, line, name_len, line + from, len - from);
}

/* Lines end with CR, LF or both. */
bool sse_feed(struct sse *s, const char *bytes, size_t len)
{
    const char *end = bytes + len;
    while (bytes < end && !s->line.failed && !s->data.failed) {
        if (s->after_cr && *bytes == '\n')
            bytes++;
        s->after_cr = false;
        const char *stop = bytes;
        while (stop < end && *stop != '\n' && *stop != '\r')
            stop++;
        buf_add(&s->line, bytes, (size_t)(stop - bytes));
        if (stop == end)
            break;
        s->after_cr = *stop == '\r';
        take_line(s);
        buf_reset(&s->line);
        bytes = stop + 1;
    }
    return !s->line.failed && !s->data.failed;
}
