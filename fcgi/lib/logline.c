/* logline: see logline.h. */
#include "lib/logline.h"

#include <string.h>

#include "lib/buf.h"

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* sd-daemon(3): SD_DEBUG and so on. */
static const char *const journal_levels[] = {"<7>", "<6>", "<4>", "<3>"};

static void add_time(struct buf *b, int64_t now_ms)
{
    char text[32];
    utc_text(now_ms / 1000, text);
    buf_addf(b, "%.19s.%03dZ", text, (int)(now_ms % 1000));
}

static void add_text(struct buf *b, bool for_journal, const struct logline *line)
{
    if (!for_journal) {
        add_time(b, line->now_ms);
        buf_addf(b, " %s ", level_names[line->level]);
    }
    if (line->process[0] != '\0')
        buf_addf(b, "%s: ", line->process);
    buf_puts(b, line->message);
    if (line->repeated == 1)
        buf_puts(b, " (repeated once)");
    else if (line->repeated > 1)
        buf_addf(b, " (repeated %lld times)", (long long)line->repeated);
    if (line->trace != NULL)
        buf_addf(b, " trace=%s", line->trace);
}

static void add_member(struct buf *b, const char *name, const char *value)
{
    buf_addf(b, "\"%s\":", name);
    buf_add_json_string(b, value, strlen(value));
    buf_putc(b, ',');
}

static void add_json(struct buf *b, const struct logline *line)
{
    buf_puts(b, "{\"time\":\"");
    add_time(b, line->now_ms);
    buf_puts(b, "\",");
    add_member(b, "level", level_names[line->level]);
    if (line->process[0] != '\0')
        add_member(b, "process", line->process);
    buf_addf(b, "\"pid\":%d,", line->pid);
    if (line->repeated > 0)
        buf_addf(b, "\"repeated\":%lld,", (long long)line->repeated);
    if (line->trace != NULL)
        add_member(b, "traceparent", line->trace);
    add_member(b, "message", line->message);
    b->data[b->len - 1] = '}'; /* in place of the last comma */
}

size_t logline_write(enum log_format format, bool for_journal, const struct logline *line,
                     char out[static LOGLINE_MAX])
{
    struct buf b;
    buf_init(&b, LOGLINE_MAX - 1);
    if (for_journal)
        buf_puts(&b, journal_levels[line->level]);
    if (format == LOG_JSON)
        add_json(&b, line);
    else
        add_text(&b, for_journal, line);
    buf_putc(&b, '\n');
    size_t len = b.len;
    memcpy(out, b.data, len);
    buf_done(&b);
    return len;
}
